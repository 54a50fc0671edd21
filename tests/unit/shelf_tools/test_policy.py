"""Policy documents: exactly what readers need, for places and principals as AWS writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudimport.errors import ConfigurationError, NotPublishedError
from cloudimport.format.lock import Lock
from cloudimport.format.records import Ref, sha256
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.environments import replace_lock
from shelf_tools.policy import (
    IDENTITY_SIZE,
    Place,
    keys_of_lock,
    keys_of_names,
    keys_of_requirements,
    policy,
    resources,
    shares,
    too_large,
)
from tests.support.shelfcommand import run_shelf

PLACE = Place("bucket", "some/prefix", "")
ONE, TWO = sha256(b"one"), sha256(b"two")
LOCK = Lock(
    "s3://bucket/some/prefix",
    ("b==1", 'a[x]==2 ; python_version < "3.11"'),
    {"cp311-manylinux_2_34_x86_64": Ref(ONE, 1, 2), "cp312-manylinux_2_34_x86_64": Ref(TWO, 1, 2)},
    {},
)


def test_an_identity_policy_is_this_document() -> None:
    """One statement: GetObject, on the packages, the indexes of all targets, and the status."""
    assert policy(PLACE, keys_of_lock(LOCK, ())) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ReadShelf",
                "Effect": "Allow",
                "Action": "s3:GetObject",
                "Resource": [
                    "arn:aws:s3:::bucket/some/prefix/packages/a/*",
                    "arn:aws:s3:::bucket/some/prefix/packages/b/*",
                    *(f"arn:aws:s3:::bucket/some/prefix/envs/{digest}" for digest in sorted((ONE, TWO))),
                    "arn:aws:s3:::bucket/some/prefix/status.json",
                ],
            }
        ],
    }


def test_some_names_of_a_lock() -> None:
    """Names beside a lock are those that can be imported, however they are written."""
    found = keys_of_lock(LOCK, ["A"])
    assert [key for key in found if key.startswith("packages/")] == ["packages/a/*"]
    with pytest.raises(ConfigurationError, match="not among its requirements: c, d"):
        keys_of_lock(LOCK, ["a", "D", "c"])


def test_names_alone() -> None:
    """Names without a lock are of any environment."""
    assert keys_of_names(["B_b", "a", "b-b"]) == ["packages/a/*", "packages/b-b/*", "envs/*", "status.json"]


def test_a_list_that_is_not_published(tmp_path: Path) -> None:
    """A list that has no pointer has no readers: it is an error that says so."""
    with pytest.raises(NotPublishedError, match="not published on"):
        keys_of_requirements(open_source(str(tmp_path), SourceConfig()), ["a==1"], ())


@pytest.mark.parametrize(
    ("url", "environ", "arn"),
    [
        ("s3://bucket", {}, "arn:aws:s3:::bucket/status.json"),
        ("S3A://bucket//a/", {"AWS_REGION": "eu-west-1"}, "arn:aws:s3:::bucket/a/status.json"),
        ("s3://bucket/a", {"AWS_REGION": "cn-north-1"}, "arn:aws-cn:s3:::bucket/a/status.json"),
        (
            "s3://bucket/a",
            {"AWS_DEFAULT_REGION": "us-gov-west-1"},
            "arn:aws-us-gov:s3:::bucket/a/status.json",
        ),
        ("s3://bucket/a*b?$c", {}, "arn:aws:s3:::bucket/a${*}b${?}${$}c/status.json"),
    ],
)
def test_places(url: str, environ: dict[str, str], arn: str) -> None:
    """A shelf's URL becomes an ARN of the region's partition; what would be a wild card there is none."""
    assert Place.of(url, environ).arn("status.json") == arn
    assert Place.of(url, environ).arn("envs/*") == arn.removesuffix("status.json") + "envs/*"


@pytest.mark.parametrize("url", ["/srv/shelf", "file:///srv", "gs://bucket/a", "s3://", "s3:///a"])
def test_no_place_on_s3(url: str) -> None:
    """Of what is not on S3 there is no policy."""
    with pytest.raises(ConfigurationError, match="a policy is for a shelf on S3"):
        Place.of(url, {})


@pytest.mark.parametrize(
    ("principals", "written"),
    [
        (["arn:aws:iam::111122223333:role/x"], {"AWS": ["arn:aws:iam::111122223333:role/x"]}),
        (["111122223333", "arn:aws:iam:::user/y"], {"AWS": ["111122223333", "arn:aws:iam:::user/y"]}),
        (["*"], "*"),
    ],
)
def test_principals(principals: list[str], written: object) -> None:
    """A bucket's policy says whom it is for."""
    [statement] = policy(PLACE, ["status.json"], principals)["Statement"]
    assert statement["Principal"] == written


@pytest.mark.parametrize("principal", ["", "reader", "arn:aws:iam", "arn:aws:iam::1:role/a b", "11112222333"])
def test_what_is_no_principal(principal: str) -> None:
    """What S3 would refuse is refused here."""
    with pytest.raises(ConfigurationError, match="is no principal"):
        policy(PLACE, ["status.json"], [principal])


def test_too_large() -> None:
    """A policy that AWS would not take is said to be so: the limits are 6,144 characters and 20 KB."""
    small: dict[str, Any] = policy(PLACE, keys_of_names(["a"]))
    assert too_large(small, False) == too_large(small, True) == ""
    middle = policy(PLACE, keys_of_names([f"package-{n}" for n in range(120)]))
    assert IDENTITY_SIZE < len(json.dumps(middle)) < 20 << 10
    assert f"AWS takes {IDENTITY_SIZE} in a managed policy: make several" in too_large(middle, False)
    assert too_large(middle, True) == ""
    large = policy(PLACE, keys_of_names([f"package-{n}" for n in range(500)]), ["*"])
    assert "AWS takes 20480 in a bucket policy" in too_large(large, True)


def test_what_is_too_large_becomes_several() -> None:
    """As few as it takes, in order, and all of what was wanted."""
    wanted = keys_of_names([f"package-{n}" for n in range(120)])
    found = shares(PLACE, wanted)
    assert len(found) == 2
    assert [key for share in found for key in share] == wanted
    assert not any(too_large(policy(PLACE, share), False) for share in found)
    assert shares(PLACE, keys_of_names(["a"])) == [keys_of_names(["a"])]


@pytest.mark.parametrize("names", [["a"], [f"package-{n}" for n in range(120)]])
def test_resources_of_a_template(tmp_path: Path, names: list[str]) -> None:
    """As YAML, the same documents; a bucket's policy has its bucket; nothing is said of what was split."""
    ran = run_shelf("policy", *names, "--shelf", "s3://bucket/a: #b'\"", "--format", "cloudformation")
    place, wanted = Place("bucket", "a: #b'\"", ""), keys_of_names(names)
    made = yaml.safe_load(ran.ok())
    assert made == resources(place, wanted)
    assert {one["Type"] for one in made.values()} == {"AWS::IAM::ManagedPolicy"}
    documents = [one["Properties"]["PolicyDocument"] for one in made.values()]
    assert documents == [policy(place, share) for share in shares(place, wanted)]
    assert ran.stderr == ""
    ran = run_shelf(
        *("policy", "a", "--shelf", "s3://bucket", "--bucket-policy", "--principal", "*"),
        "--format",
        "cloudformation",
    )
    properties = yaml.safe_load(ran.ok())["ReadShelf"]["Properties"]
    document = policy(Place("bucket", "", ""), keys_of_names(["a"]), ["*"])
    assert properties == {"Bucket": "bucket", "PolicyDocument": document}


def test_the_command(tmp_path: Path) -> None:
    """The lock says the shelf; what does not fit together is an error in one line."""
    lock = tmp_path / "cloudimport.lock"
    replace_lock(lock, LOCK)
    ran = run_shelf("policy", "--lock", lock, "a")
    assert json.loads(ran.ok()) == policy(PLACE, keys_of_lock(LOCK, ["a"]))
    assert ran.stderr == ""
    for arguments, words in (
        ((), "a policy of what?"),
        (("a", "--bucket-policy"), "belong together"),
        (("a", "--principal", "*"), "belong together"),
        (("a", "--shelf", str(tmp_path)), "a policy is for a shelf on S3"),
        (("a!", "--shelf", "s3://bucket"), "is not a package name"),
    ):
        ran = run_shelf("policy", *arguments)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert words in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
