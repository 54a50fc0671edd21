"""``shelf mirror`` as a user runs it, and sandboxes of one host that read what it copied."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.children import Runner
from tests.support.faulty import FaultyServer
from tests.support.installed import REQUESTS, publish_installed
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf, write_tree

PROGRAM = """
import json, os
import cloudimport

cloudimport.install()
import requests, certifi

with open(certifi.where()) as file:
    size = len(file.read())
print(json.dumps({"get": requests.__version__, "size": size, **cloudimport.stats()}))
"""


class Host:
    """A shelf with requests, a program with its lockfile, and a folder that the sandboxes share."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shared = folder, folder / "shared"
        (folder / "work").mkdir()
        self.shelf = MadeShelf(folder / "work")
        publish_installed(self.shelf, *REQUESTS)
        self.shelf.environment()
        write_tree(self.shelf.work, {"program.py": PROGRAM})

    def mirror(self) -> str:
        """Run ``shelf mirror``; return what it says."""
        command = ("mirror", str(self.shared), "--shelf", self.shelf.url)
        return run_shelf(*command, cwd=self.shelf.work).ok()

    def start(self, sandbox: str) -> tuple[dict[str, float], int]:
        """Run the program in a sandbox with a cache of its own; return its figures, and its requests."""
        with FaultyServer(Path(self.shelf.url)) as server:
            env = {
                "CLOUDIMPORT_SHELF": "s3://bucket",
                "CLOUDIMPORT_CACHE": str(self.folder / sandbox),
                "CLOUDIMPORT_SHARED": str(self.shared),
                "CLOUDIMPORT_YANKED": "ignore",  # else the background may ask, and is counted
                "AWS_ENDPOINT_URL_S3": server.endpoint,
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
                "AWS_REGION": "us-east-1",
            }
            runner = Runner(self.folder / f"home-{sandbox}")
            found = json.loads(runner.run_script(self.shelf.work / "program.py", env=env).ok())
            return found, len(server.requests)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host on which nothing is mirrored yet."""
    return Host(tmp_path)


def test_the_next_sandbox_fetches_nothing(host: Host) -> None:
    """Without the mirror a sandbox fetches; with it, and an empty cache of its own, nothing at all."""
    first, requests = host.start("first")
    assert requests > 5
    assert first["bytes_shared"] == 0
    assert "object" in host.mirror()
    second, requests = host.start("second")
    assert (second["requests"], second["bytes_fetched"], requests) == (0, 0, 0)
    assert second["bytes_shared"] == first["bytes_fetched"]
    assert (second["get"], second["size"]) == (first["get"], first["size"])


def test_what_is_there_is_not_copied_again(host: Host) -> None:
    """A second run copies what was cut short, and nothing else; nobody but the owner can write there."""
    assert " 0 of them copied" not in host.mirror()
    assert " 0 of them copied (0 bytes)" in host.mirror()
    packs = sorted(host.shared.rglob("pack-*"))
    assert all(path.stat().st_mode & 0o022 == 0 for path in packs)
    whole = packs[0].read_bytes()
    os.truncate(packs[0], 100)
    assert f" 1 of them copied ({len(whole)} bytes)" in host.mirror()
    assert packs[0].read_bytes() == whole


@pytest.mark.parametrize("what", ["packages", "envs", "all"])
def test_a_spoilt_mirror_is_not_trusted(host: Host, what: str) -> None:
    """Bytes that were changed there are seen, and fetched from the shelf instead: the import is the same."""
    host.mirror()
    spoilt = 0
    for path in host.shared.rglob("*"):
        if path.is_file() and (what == "all" or path.relative_to(host.shared).parts[0] == what):
            path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
            spoilt += 1
    assert spoilt
    found, requests = host.start("second")
    assert requests > 0
    assert found["size"] > 200_000


def test_a_damaged_shelf_is_not_mirrored(host: Host) -> None:
    """An object that is not what its name says is an error in one line, and not copied."""
    pack = next(Path(host.shelf.url).rglob("packages/requests/*/*/pack-*"))
    pack.write_bytes(b"x" * pack.stat().st_size)
    ran = run_shelf("mirror", str(host.shared), "--shelf", host.shelf.url, cwd=host.shelf.work)
    assert ran.returncode == 1
    assert "requests/" in ran.stderr
    assert "is damaged" in ran.stderr
    assert not list(host.shared.rglob(pack.name))
    assert not list(host.shared.rglob(".tmp-*"))
