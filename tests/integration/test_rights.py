"""Who writes to a shelf needs what README.md says: each row is tried on real S3 servers that enforce it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudimport.format import keys
from tests.support.children import Ran
from tests.support.s3servers import S3Server, User
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf

README = Path(__file__).parents[2] / "README.md"
_OF_OBJECTS = ("GetObject", "PutObject", "DeleteObject")
#: Rights that are granted on the bucket; all others are on objects.
_OF_BUCKET = ("ListBucket", "ListBucketMultipartUploads")


def rights() -> dict[str, dict[str, list[str]]]:
    """Return the README's table: by the first command of a row, actions with the keys that they are for."""
    text = README.read_text(encoding="utf-8")
    table = text.partition("| | GetObject | PutObject | DeleteObject | besides |\n|---|---|---|---|---|\n")[2]
    found = {}
    for line in table.partition("\n\n")[0].splitlines():
        who, *cells, besides = (cell.strip() for cell in line.strip("|").split("|"))
        rows = zip(_OF_OBJECTS, cells, strict=True)
        row = {f"s3:{name}": re.findall("`([^`]+)`", cell) for name, cell in rows}
        row |= {f"s3:{name}": ["" if name in _OF_BUCKET else "*"] for name in besides.split(", ")}
        found[who.partition(",")[0]] = row
    return found


@dataclass
class Shop:
    """A place for a shelf on S3, and another shelf in a folder."""

    server: S3Server
    bucket: str
    source: MadeShelf

    @property
    def url(self) -> str:
        """The shelf's URL."""
        return f"s3://{self.bucket}/some/prefix"

    def user(self, row: dict[str, list[str]]) -> User:
        """Make a user with the rights of a row."""
        user = self.server.make_user(f"curator-{os.urandom(4).hex()}")
        arn = f"arn:aws:s3:::{self.bucket}"
        statements = [
            {
                "Effect": "Allow",
                "Action": action,
                "Resource": [f"{arn}/some/prefix/{key}" if key else arn for key in wanted],
            }
            for action, wanted in row.items()
            if wanted
        ]
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        with closing(self.server.client("iam")) as iam:
            iam.put_user_policy(UserName=user.name, PolicyName="curator", PolicyDocument=document)
        return user

    def run(self, user: User, *arguments: str | Path) -> Ran:
        """Run a command on the shelf as a user."""
        return run_shelf(*arguments, "--shelf", self.url, env=user.server.environ, cwd=self.source.work)

    def promote(self, user: User) -> Ran:
        """Promote what the other shelf's lockfile pins, as a user."""
        return run_shelf("promote", self.source.url, self.url, env=user.server.environ, cwd=self.source.work)

    def there(self, prefix: str = "") -> list[str]:
        """Return the keys that are on the shelf."""
        with closing(self.server.client()) as client:
            found = client.list_objects_v2(Bucket=self.bucket, Prefix=f"some/prefix/{prefix}")
        return [entry["Key"].removeprefix("some/prefix/") for entry in found.get("Contents", ())]

    def delete(self, key: str) -> None:
        """Remove an object by the owner's hand."""
        with closing(self.server.client()) as client:
            client.delete_object(Bucket=self.bucket, Key=f"some/prefix/{key}")

    def may(self, user: User, method: str, key: str, **more: Any) -> bool:
        """Whether a user may do something with an object."""
        with closing(user.server.client()) as client:
            try:
                getattr(client, method)(Bucket=self.bucket, Key=f"some/prefix/{key}", **more)
            except client.exceptions.ClientError as error:
                assert error.response["Error"]["Code"] in ("AccessDenied", "403"), error
                return False
        return True


@pytest.fixture(params=["moto", "radosgw"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[S3Server], str]) -> Shop:
    """A bucket with nothing in it, and a shelf in a folder with an environment of two packages."""
    (tmp_path / "work").mkdir()
    made = MadeShelf(tmp_path / "work")
    made.add("a", "1", {"a.py": "X = 1\n"})
    made.add("b", "1", {"b.py": "X = 1\n"})
    made.environment()
    server: S3Server = request.getfixturevalue(request.param)
    return Shop(server, new_bucket(server), made)


def test_publishers(shop: Shop) -> None:
    """A publisher makes a shelf, writes to it, takes its lease back and repairs; it removes nothing else."""
    user = shop.user(rights()["publish"])
    assert "2 builds on" in shop.promote(user).ok()
    assert shop.there("leases/") == []
    (pack,) = (key for key in shop.there("packages/a/") if "/pack-" in key)
    shop.delete(pack)
    assert f"repaired {pack}" in shop.run(user, "verify", "--repair", "--from", shop.source.url).ok()
    for key in (pack, keys.STATUS, *shop.there("envs/")):
        assert not shop.may(user, "delete_object", key)
    assert not shop.may(user, "put_object", "../elsewhere", Body=b"x")


def test_publishers_that_delete_nothing(shop: Shop) -> None:
    """Without the right to delete, the lease stays, and all else is the same."""
    user = shop.user({**rights()["publish"], "s3:DeleteObject": []})
    assert "2 builds on" in shop.promote(user).ok()
    assert len(shop.there("leases/")) == 1


@pytest.mark.parametrize("left_out", ["leases/*", "packages/*", "envs/*", "shelf.json", "status.json"])
def test_publishers_that_may_too_little(shop: Shop, left_out: str) -> None:
    """What the table says is needed: without it nothing is published, and the error says where it failed."""
    row = rights()["publish"]
    row["s3:PutObject"].remove(left_out)
    ran = shop.promote(shop.user(row))
    assert ran.returncode == 1
    assert left_out.removesuffix("*") in ran.stderr
    assert not any(key.endswith(".json") for key in shop.there("envs/"))


def test_keeping_and_looking(shop: Shop) -> None:
    """Whoever yanks, forgets, collects or looks has a row of his own, and none may publish."""
    rows = rights()
    users = {who: shop.user(row) for who, row in rows.items()}
    assert sorted(users) == ["forget", "gc --delete", "ls", "publish", "run", "yank"]
    shop.promote(users["publish"]).ok()
    for who in ("forget", "gc --delete", "ls", "run", "yank"):
        assert shop.promote(users[who]).returncode == 1
        assert not shop.may(users[who], "put_object", "packages/a/x", Body=b"x")
    assert shop.run(users["yank"], "yank", "a==1", "--reason", "a hole").ok() == "a==1 is yanked"
    ls = users["ls"]
    assert "a==1" in shop.run(ls, "ls").ok()
    assert "yanked: a hole" in shop.run(ls, "ls").ok()
    assert "a hole" in shop.run(ls, "show", "a==1").ok()
    assert shop.run(ls, "verify").ok() == "2 builds checked, 0 problems"
    assert shop.run(ls, "yank", "a==1", "--reason", "x").returncode == 1
    assert shop.run(users["yank"], "unyank", "a==1").returncode == 0
    shop.run(users["forget"], "forget", shop.source.lock, "--history").ok()
    dry = shop.run(ls, "gc", "--older-than", "0").ok()
    assert "would go" in dry
    ran = shop.run(users["gc --delete"], "gc", "--delete", "--older-than", "0")
    assert ran.ok().endswith("deleted")
    assert set(shop.there()) == {keys.SHELF, keys.STATUS, keys.COLLECTION}
