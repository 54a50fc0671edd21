"""Templates: what is filled in, what is refused, and that they say what README.md says of rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.format.lock import Lock
from cloudimport.format.records import Ref
from cloudimport.ids import Target
from lambda_layer.templating import EVERYTHING, KINDS, Filling, filling, template
from tests.integration.test_rights import rights
from tests.support.templates import read_template

ARM, INTEL = "cp312-manylinux_2_34_aarch64", "cp312-manylinux_2_34_x86_64"


def lock_of(*targets: str, shelf: str = "s3://b-u/p/q") -> Lock:
    """Return a lockfile of two packages."""
    refs = {target: Ref(f"{number}a" * 32, 1, 1) for number, target in enumerate(targets)}
    return Lock(shelf, ("idna==1", "six==1"), refs, {})


def filled(lock: Lock | None, shelf: str = "", target: str = "") -> Filling:
    """Return what a template is filled in with."""
    return filling([lock] if lock else [], shelf, {}, Target.parse(target) if target else None)


def test_a_lockfile_says_everything() -> None:
    """Shelf, machine, and what is to be read: its packages, its indexes, what is yanked."""
    found = filled(lock_of(ARM))
    assert (found.bucket, found.prefix, found.has_bucket) == ("b-u", "p/q/", False)
    assert (found.runtime, found.architecture) == ("python3.12", "arm64")
    assert found.readable == ["packages/idna/*", "packages/six/*", f"envs/{'0a' * 32}", "status.json"]


def test_versions_that_still_run() -> None:
    """What their lockfiles need can be read, too; each key once. Shelf and machine are the first one's."""
    older = lock_of(INTEL, shelf="s3://old")._replace(
        requirements=("abc==1", "six==0"), targets={INTEL: Ref("ff" * 32, 1, 1)}
    )
    found = filling([lock_of(ARM), older], "", {}, None)
    assert (found.bucket, found.architecture) == ("b-u", "arm64")
    packages = [f"packages/{name}/*" for name in ("abc", "idna", "six")]
    assert found.readable == [*packages, f"envs/{'0a' * 32}", f"envs/{'ff' * 32}", "status.json"]


def test_another_shelf_is_told_beside_the_lockfile() -> None:
    """As when it was promoted; a shelf that is the whole bucket has no prefix."""
    found = filled(lock_of(ARM), "s3://prod")
    assert (found.bucket, found.prefix) == ("prod", "")


def test_which_machine_it_is() -> None:
    """The one that the lockfile is for; of several one is chosen; one that it is not for is refused."""
    both = lock_of(ARM, INTEL, "cp311-manylinux_2_34_x86_64")
    with pytest.raises(
        ConfigurationError, match=r"say --python and --arch .*: lambda-python3.12-arm64, lambda"
    ):
        filled(both)
    assert filled(both, target="lambda-python3.12-x86_64").architecture == "x86_64"
    with pytest.raises(ConfigurationError, match=r"is not for lambda-python3.13-arm64; .*python3.12-arm64"):
        filled(lock_of(ARM), target="lambda-python3.13-arm64")
    with pytest.raises(ConfigurationError, match="the lockfile is for: none"):  # Lambda's has glibc 2.26
        filled(lock_of("cp311-manylinux_2_34_x86_64"))
    assert filled(lock_of("cp311-manylinux_2_17_x86_64")).runtime == "python3.11"


def test_without_a_lockfile() -> None:
    """Everything of the shelf may be read; without a shelf the stack makes the bucket."""
    assert filled(None) == Filling()
    found = filled(None, "s3://b-u/p", "lambda-python3.13-x86_64")
    assert found == Filling("b-u", "p/", False, EVERYTHING, "python3.13", "x86_64")


@pytest.mark.parametrize("prefix", ["a b", "a*", "a?/b", "${x}", "a//b", 'a"b', "é"])
def test_prefixes_that_a_policy_takes_for_patterns(prefix: str) -> None:
    """They are refused: a wildcard would let more be read."""
    with pytest.raises(ConfigurationError, match="templates take prefixes of"):
        filled(lock_of(ARM), f"s3://b-u/{prefix}")


def test_shelves_that_have_no_template() -> None:
    """A folder is none of S3's, and a lockfile may name no shelf."""
    with pytest.raises(ConfigurationError, match="a policy is for a shelf on S3"):
        filled(lock_of(ARM, shelf="/srv/shelf"))
    with pytest.raises(ConfigurationError, match="names no shelf"):
        filled(lock_of(ARM, shelf=""))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_to_fill_in(kind: str) -> None:
    """No mark stays in a template; paths are quoted."""
    text = template(kind, filled(lock_of(ARM))._replace(code='a "b": #/', layer="c\\d"))
    assert "# +" not in text
    assert "@" not in text.replace("=,@+-", "")
    if kind == "sam":
        resources = read_template(text)["Resources"]
        assert resources["Function"]["Properties"]["CodeUri"] == 'a "b": #/'
        assert resources["Layer"]["Properties"]["ContentUri"] == "c\\d"


def test_one_bucket_whoever_makes_it() -> None:
    """The bucket is the same in each template; named if its shelf is."""
    made = [read_template(template(kind, Filling()))["Resources"] for kind in KINDS]
    assert all(one["ShelfBucket"] == made[0]["ShelfBucket"] for one in made)
    assert all(one["ShelfBucketPolicy"] == made[0]["ShelfBucketPolicy"] for one in made)
    assert "BucketName" not in made[0]["ShelfBucket"]["Properties"]
    named = read_template(template("publisher", Filling("b-u", "p/")))
    assert named["Resources"]["ShelfBucket"]["Properties"]["BucketName"] == "b-u"
    there = read_template(template("publisher", Filling("b-u", "p/", has_bucket=False)))
    assert "ShelfBucket" not in there["Resources"]
    assert there["Parameters"]["ShelfBucket"]["Default"] == "b-u"


def granted(policy: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield actions with the keys that a policy grants them for; "" is the bucket."""
    for statement in policy["Properties"]["PolicyDocument"]["Statement"]:
        actions, wanted = statement["Action"], statement["Resource"]
        for action in actions if isinstance(actions, list) else [actions]:
            for one in wanted if isinstance(wanted, list) else [wanted]:
                arn = one["Fn::Sub"].removeprefix("arn:${AWS::Partition}:s3:::${ShelfBucket}")
                yield action, arn.removeprefix("/${ShelfPrefix}")


@pytest.mark.parametrize(
    ("name", "rows"), [("PublishPolicy", ["publish", "yank"]), ("KeepPolicy", ["forget", "gc --delete"])]
)
def test_rights_are_those_of_the_readme(name: str, rows: list[str]) -> None:
    """What the table of rights says of those commands, together, and nothing else."""
    found = set(granted(read_template(template("publisher", Filling()))["Resources"][name]))
    table = rights()
    wanted = {(action, key) for row in rows for action, all_keys in table[row].items() for key in all_keys}
    covered = {(action, key) for action, key in wanted if (action, "*") in wanted and key not in ("", "*")}
    assert found == wanted - covered
