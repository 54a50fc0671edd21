"""``shelf policy``: readers with what it writes, and no more, on real S3 servers that enforce it."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudimport.format import keys
from tests.integration.test_real_packages import HELLO, SAMPLE
from tests.integration.test_real_packages import publish as publish_packages
from tests.support.children import Ran, Runner
from tests.support.installed import REQUESTS, publish_installed
from tests.support.runtimes import running_version
from tests.support.s3servers import S3Server, User
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf

#: Where the policy of a user is enforced, and that of a bucket: moto lets no user do more by a bucket's.
WAYS = [("moto", "identity"), ("radosgw", "identity"), ("radosgw", "bucket")]


@dataclass
class Shop:
    """A published environment, and readers who come with nothing but a policy, given in one ``way``."""

    server: S3Server
    bucket: str
    url: str
    lock: Path
    folder: Path
    way: str

    def policy(self, *arguments: str | Path) -> dict[str, Any]:
        """Run ``shelf policy``; return the document."""
        ran = run_shelf("policy", *arguments, "--shelf", self.url, env=self.server.environ, cwd=self.folder)
        document: dict[str, Any] = json.loads(ran.ok())
        assert ran.stderr == ""
        return document

    def stranger(self) -> User:
        """Make a user who may do nothing."""
        return self.server.make_user(f"reader-{os.urandom(4).hex()}")

    def reader(self, *arguments: str | Path) -> User:
        """Make a user with the policy that ``shelf policy`` writes."""
        user = self.stranger()
        if self.way == "bucket":
            document = self.policy(*arguments, "--bucket-policy", "--principal", user.arn)
            with closing(self.server.client()) as client:
                client.put_bucket_policy(Bucket=self.bucket, Policy=json.dumps(document))
        else:
            text = json.dumps(self.policy(*arguments))
            with closing(self.server.client("iam")) as iam:
                iam.put_user_policy(UserName=user.name, PolicyName="shelf", PolicyDocument=text)
        return user

    def run(self, user: User, code: str, **env: str) -> Ran:
        """Run code after ``install()`` as a user, with an empty cache."""
        runner = Runner(self.folder / f"home-{os.urandom(4).hex()}")
        settings = {"CLOUDIMPORT_LOCK": str(self.lock), "CLOUDIMPORT_SHELF": self.url, **user.server.environ}
        code = f"import cloudimport\nenv = cloudimport.install()\n{code}\n"
        return runner.run(code, env={**settings, **env})

    def may(self, user: User, method: str, key: str, **more: object) -> bool:
        """Whether a user may do something with an object of the shelf, or without a key with the bucket."""
        place = {"Bucket": self.bucket, **({"Key": f"some/prefix/{key}"} if key else {})}
        with closing(user.server.client()) as client:
            try:
                answer = getattr(client, method)(**place, **more)
            except client.exceptions.ClientError as error:
                assert error.response["Error"]["Code"] in ("AccessDenied", "403"), error
                return False
            if "Body" in answer:
                answer["Body"].read()
        return True

    def everything(self) -> set[str]:
        """Return the keys of all that is on the shelf."""
        with closing(self.server.client()) as client:
            found = client.list_objects_v2(Bucket=self.bucket)["Contents"]
        return {entry["Key"].removeprefix("some/prefix/") for entry in found}


@pytest.fixture(params=WAYS, ids="-".join)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    """A shelf on S3 with requests and what it needs, and a package of others."""
    name, way = request.param
    server: S3Server = request.getfixturevalue(name)
    bucket = f"shelf-{os.urandom(6).hex()}"
    with closing(server.client()) as client:
        client.create_bucket(Bucket=bucket)
    (tmp_path / "work").mkdir()
    shelf = MadeShelf(tmp_path / "work", f"s3://{bucket}/some/prefix", server.environ)
    with closing(shelf.source):
        publish_installed(shelf, *REQUESTS)
        shelf.add("secret", "1.0", {"secret.py": "x = 1\n"})
        for key in (f"{keys.LEASES}0123456789abcdef.json", keys.COLLECTION, f"boots/{'0' * 64}/{'1' * 64}"):
            shelf.store.put(key, b"{}")  # for those who write
        shelf.environment("secret==1")
        shelf.environment(*(str(pin) for pin in shelf.builds if pin.name != "secret"))
    return Shop(server, bucket, shelf.url, shelf.lock, tmp_path, way)


def denied(ran: Ran) -> str:
    """Return the last line of a run that was denied something."""
    assert ran.returncode == 1, ran.stdout
    line = ran.stderr.strip().splitlines()[-1]
    assert line.startswith("cloudimport.errors.DeniedError: "), ran.stderr
    return line


def test_a_reader_of_a_lockfile(shop: Shop) -> None:
    """With the policy of a lockfile all its packages are imported, and it is known what was yanked; nothing
    else can be read, listed or written.
    """
    user = shop.reader("--lock", shop.lock)
    code = """
import requests, idna
print(requests.__file__.startswith(env.root), idna.__file__.startswith(env.root))
print(len(open(env.root + "/certifi/cacert.pem").read()) > 100_000)
"""
    strict = {"CLOUDIMPORT_YANKED": "refuse", "CLOUDIMPORT_STATUS_UNKNOWN": "refuse"}
    assert shop.run(user, code, **strict).ok() == "True True\nTrue"
    there = shop.everything()
    lock = json.loads(shop.lock.read_text())
    own = {f"envs/{target['index'][0]}" for target in lock["targets"].values()} | {"status.json"}
    own |= {key for key in there if key.startswith(tuple(f"packages/{name}/" for name in REQUESTS))}
    assert {key for key in there if shop.may(user, "get_object", key)} == own
    assert len([key for key in there - own if key.startswith("packages/secret/")]) > 3
    assert len([key for key in there - own if key.startswith("envs/")]) == 3
    assert len([key for key in there - own if key.startswith(("boots/", keys.LEASES, keys.COLLECTION))]) == 3
    assert not shop.may(user, "list_objects_v2", "")
    assert not shop.may(user, "put_object", "packages/idna/x", Body=b"x")
    assert not shop.may(user, "delete_object", "status.json")


def test_a_reader_of_some_packages(shop: Shop) -> None:
    """Who may read some packages of a lockfile imports these; of another the error names the package and what
    to grant, and when that is granted the import works.
    """
    rest = [name for name in REQUESTS if name != "idna"]
    user = shop.reader("--lock", shop.lock, *rest)
    works = "import urllib3, certifi\nprint(urllib3.__file__.startswith(env.root))"
    assert shop.run(user, works).ok() == "True"
    for program in ("import idna", "import requests"):  # which needs idna
        line = denied(shop.run(user, program))
        assert line.startswith("cloudimport.errors.DeniedError: idna==")
        assert " may not be read: s3://" in line
        arn = f"arn:aws:s3:::{shop.bucket}/some/prefix/packages/idna/*"
        assert line.endswith(f": grant s3:GetObject on {arn} ('shelf policy idna' writes the policy)")
    caught = """
try:
    import idna
except ModuleNotFoundError:
    print("hidden")
except ImportError as error:
    print(type(error).__name__, error.package.partition("==")[0])
"""
    assert shop.run(user, caught).ok() == "DeniedError idna"
    granted = shop.reader("--lock", shop.lock, *rest, "idna")
    assert shop.run(granted, "import requests\nprint('granted')").ok() == "granted"


def test_a_reader_of_a_list(shop: Shop) -> None:
    """A policy for a published list has its pointer as well, so that no lockfile is needed."""
    requirements = shop.lock.with_name("requirements.txt")
    user = shop.reader("-r", requirements)
    settings = {"CLOUDIMPORT_LOCK": "", "CLOUDIMPORT_REQUIREMENTS": str(requirements)}
    code = "import requests\nprint(requests.__file__.startswith(env.root))"
    assert shop.run(user, code, **settings).ok() == "True"
    locked = shop.reader("--lock", shop.lock)
    refused = shop.run(locked, code, **settings).stderr.splitlines()[-1]
    assert "is not published on" in refused
    assert "or reading it is not allowed" in refused


def test_a_reader_of_names(shop: Shop) -> None:
    """A policy for names is for any environment: the packages, and every index."""
    user = shop.reader(*REQUESTS)
    assert shop.run(user, "import requests\nprint('works')").ok() == "works"
    assert {key.partition("/")[0] for key in shop.everything() if shop.may(user, "get_object", key)} == {
        "packages",
        "envs",
        "status.json",
    }
    assert not any(shop.may(user, "get_object", key) for key in shop.everything() if "/secret/" in key)


def test_a_reader_without_a_policy(shop: Shop) -> None:
    """Who may read nothing is told which object it is, and which command writes what is needed."""
    line = denied(shop.run(shop.stranger(), "import requests"))
    assert f"grant s3:GetObject on arn:aws:s3:::{shop.bucket}/some/prefix/envs/" in line
    assert line.endswith("('shelf policy --lock cloudimport.lock' writes the policy)")


@pytest.mark.network
@pytest.mark.long
@pytest.mark.parametrize(("name", "way"), WAYS)
def test_pandas(request: pytest.FixtureRequest, name: str, way: str, tmp_path: Path) -> None:
    """With the policy of its packages ``import pandas`` works; without numpy's the error names numpy."""
    server: S3Server = request.getfixturevalue(name)
    bucket = f"pandas-{os.urandom(6).hex()}"
    with closing(server.client()) as client:
        client.create_bucket(Bucket=bucket)
    wanted = SAMPLE["pandas"].split()
    lines = (HELLO / f"requirements-{running_version()}.txt").read_text().splitlines()
    pins = [line for line in lines if line.partition("==")[0] in wanted]
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("".join(line + "\n" for line in pins))
    published = publish_packages(server, bucket, requirements, running_version())
    shop = Shop(server, bucket, published.url, published.lock, tmp_path, way)
    code = "import pandas\nprint(pandas.__file__.startswith(env.root), pandas.Series([1, 2]).sum())"
    assert shop.run(shop.reader("--lock", shop.lock), code).ok() == "True 3"
    names = [pin.partition("==")[0] for pin in pins if not pin.startswith("numpy==")]
    ran = shop.run(shop.reader("--lock", shop.lock, *names), code)
    assert ran.returncode == 1
    arn = f"arn:aws:s3:::{bucket}/some/prefix/packages/numpy/*"
    assert f": grant s3:GetObject on {arn} ('shelf policy numpy' writes the policy)" in ran.stderr
