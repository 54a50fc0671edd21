"""The S3 server behind the link, and on it: a shelf, archives, trees, and an index of wheels for pip."""

from __future__ import annotations

import hashlib
import html
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from packaging.utils import parse_wheel_filename

from tests.bench.link import Link
from tests.support.certificates import make_server_context
from tests.support.s3servers import Place, S3Server, radosgw_server

_PAGE = "<!DOCTYPE html><html><body>\n{links}\n</body></html>\n"
_LINK = '<a href="{href}#sha256={sha256}" data-dist-info-metadata="sha256={metadata}">{name}</a>'


class Store:
    """One bucket; what rivals read of it needs no signature."""

    def __init__(self, server: S3Server, bucket: str) -> None:
        self.server = server
        self.bucket = server.make_bucket(bucket)
        self._client = server.client()
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{bucket}/*",
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self._client.put_bucket_policy(Bucket=bucket, Policy=policy)
        self._links: dict[str, dict[str, str]] = defaultdict(dict)

    @property
    def shelf(self) -> str:
        """URL of the shelf."""
        return f"s3://{self.bucket}/shelf"

    @property
    def index(self) -> str:
        """URL of the index of wheels (PEP 503, with metadata files as PEP 658 has them)."""
        return self.url("simple/")

    def url(self, key: str) -> str:
        """Return the URL of an object."""
        return f"{self.server.endpoint}/{self.bucket}/{key}"

    def put_file(self, key: str, path: Path) -> None:
        """Store a file."""
        self._client.upload_file(str(path), self.bucket, key)

    def put_tree(self, prefix: str, tree: Path) -> None:
        """Store a folder's files, and their names as ``LIST``."""
        paths = sorted(path for path in tree.rglob("*") if path.is_file())
        names = [str(path.relative_to(tree)) for path in paths]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self.put_file(f"{prefix}/{name}", tree / name), names))
        self._put(f"{prefix}/LIST", "\n".join(names).encode())

    def add_wheels(self, folder: Path) -> None:
        """Put wheels on the index."""
        for wheel in sorted(folder.glob("*.whl")):
            name = str(parse_wheel_filename(wheel.name)[0])
            if wheel.name in self._links[name]:
                continue
            metadata = _metadata(wheel)
            self.put_file(f"wheels/{wheel.name}", wheel)
            self._put(f"wheels/{wheel.name}.metadata", metadata)
            self._links[name][wheel.name] = _LINK.format(
                href=html.escape(self.url(f"wheels/{wheel.name}")),
                sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
                metadata=hashlib.sha256(metadata).hexdigest(),
                name=wheel.name,
            )
            page = _PAGE.format(links="\n".join(self._links[name].values()))
            self._put(f"simple/{name}/", page.encode(), "text/html")

    def _put(self, key: str, data: bytes, kind: str = "application/octet-stream") -> None:
        self._client.put_object(Bucket=self.bucket, Key=key, Body=data, ContentType=kind)


def _metadata(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [
            name
            for name in archive.namelist()
            if name.endswith(".dist-info/METADATA") and name.count("/") == 1
        ]
        return archive.read(name)


@contextmanager
def running_store(link: Link, folder: Path) -> Iterator[Store]:
    """Run radosgw with TLS at the other end of the link."""
    _, root = make_server_context(folder, link.address)
    place = Place(tuple(link.at_server()), link.address, folder / "server.pem", root)
    with radosgw_server(place) as server:
        yield Store(server, "bench")
