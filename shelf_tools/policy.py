"""``shelf policy``: who may read what, as the documents that S3 takes, and as CloudFormation's resources.

Forms: "IAM JSON policy elements reference" and "IAM and AWS STS quotas", IAM user guide; "Bucket policies",
Amazon S3 user guide; AWS::IAM::ManagedPolicy and AWS::S3::BucketPolicy, CloudFormation template reference. A
reader needs s3:GetObject on keys that it knows, and nothing else (docs/format.md, sections 4 and 11).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cloudimport.errors import AbsentError, ConfigurationError, NotPublishedError
from cloudimport.format import keys
from cloudimport.format.lock import Lock
from cloudimport.format.records import EnvironmentPointer, requirements_digest
from cloudimport.format.requirements import parse_lines
from cloudimport.ids import normalise_name
from cloudimport.sources.base import Source
from cloudimport.sources.reading import join
from cloudimport.sources.s3_endpoint import check_bucket, object_arn

#: Characters that IAM takes in a managed policy, white space not counted, and S3 in a bucket policy (20 KB).
IDENTITY_SIZE, BUCKET_SIZE = 6144, 20 << 10
_S3 = re.compile(r"s3[an]?://([^/]+)/*(.*)\Z", re.IGNORECASE | re.DOTALL)
#: An account, whatever is in it (an ARN, also radosgw's with an empty account), or everybody.
_PRINCIPAL = re.compile(r"(\*|[0-9]{12}|arn:[^\s:]*:[^\s:]+:[^\s:]*:[^\s:]*:[^\s]+)\Z")


class Place(NamedTuple):
    """Where a shelf lies on S3; ``prefix`` without slashes at its ends."""

    bucket: str
    prefix: str
    region: str

    @classmethod
    def of(cls, url: str, environ: Mapping[str, str]) -> Place:
        """Return the place of a shelf's URL. Raises ConfigurationError if it is not on S3."""
        match = _S3.match(url)
        if match is None:
            raise ConfigurationError(
                f"a policy is for a shelf on S3, and {url} is none: say which with --shelf s3://bucket/prefix"
            )
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or ""
        return cls(check_bucket(match[1]), match[2].strip("/"), region)

    def arn(self, key: str) -> str:
        """Return the ARN of a key, or of what begins with it if it ends in ``/*``."""
        return object_arn(self.region, self.bucket, join(self.prefix, key))


def keys_of_lock(lock: Lock, names: Iterable[str]) -> list[str]:
    """Return what a lockfile's readers ask for: keys, and prefixes that end in ``/*``.

    With ``names`` only those of its packages can be imported; the index is needed in any case.
    Raises ConfigurationError for names that the lock does not have.
    """
    indexes = [keys.environment_index(ref.digest) for ref in lock.targets.values()]
    return [*_packages(_named(lock.requirements, names)), *_distinct(indexes), keys.STATUS]


def keys_of_requirements(source: Source, lines: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return what readers of a published list ask for: as of a lock, and the list's pointer.

    Raises NotPublishedError, another FetchError, and ConfigurationError.
    """
    key = keys.environment_pointer(requirements_digest(lines))
    try:
        pointer = EnvironmentPointer.decode(source.read(key), f"{source.url}/{key}")
    except AbsentError as error:
        raise NotPublishedError(f"the list is not published on {source.url}: publish it first") from error
    indexes = [keys.environment_index(ref.digest) for ref in pointer.targets.values()]
    return [*_packages(_named(lines, names)), *_distinct(indexes), key, keys.STATUS]


def keys_of_names(names: Iterable[str]) -> list[str]:
    """Return what those ask for who may import these packages from any environment.

    An index is named by its digest, which nobody knows of those that are published later: readers of
    names see all of them, and so the file names of every package.
    """
    return [*_packages(sorted(map(normalise_name, names))), "envs/*", keys.STATUS]


def _distinct(found: Iterable[str]) -> list[str]:
    return sorted(set(found))


def _packages(names: Iterable[str]) -> list[str]:
    return [f"packages/{name}/*" for name in _distinct(names)]


def _named(lines: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return the names in requirement lines, or ``names`` if there are any of these.

    Raises ConfigurationError for names that are in no line.
    """
    listed = {requirement.pin.name for requirement in parse_lines(lines)}
    wanted = _distinct(map(normalise_name, names))
    unknown = [name for name in wanted if name not in listed]
    if unknown:
        raise ConfigurationError(f"not among its requirements: {', '.join(unknown)}")
    return wanted or sorted(listed)


def policy(place: Place, wanted: Iterable[str], principals: Sequence[str] = ()) -> dict[str, Any]:
    """Return a policy document that lets ``wanted`` be read: of an identity, or a bucket's for principals.

    Raises ConfigurationError for what is no principal.
    """
    statement: dict[str, Any] = {"Sid": "ReadShelf", "Effect": "Allow"}
    if principals:
        statement["Principal"] = _principal(principals)
    statement["Action"] = "s3:GetObject"
    statement["Resource"] = [place.arn(key) for key in wanted]
    return {"Version": "2012-10-17", "Statement": [statement]}


def _principal(principals: Sequence[str]) -> str | dict[str, list[str]]:
    for principal in principals:
        if not _PRINCIPAL.match(principal):
            raise ConfigurationError(
                f"{principal!r} is no principal: write an ARN (arn:aws:iam::111122223333:role/reader), the "
                "number of an account, or *"
            )
    return "*" if "*" in principals else {"AWS": list(principals)}


def too_large(document: Mapping[str, Any], is_for_bucket: bool) -> str:
    """Return a line if AWS does not take a policy of this size, else ""."""
    size = len(json.dumps(document, separators=(",", ":")))
    limit = BUCKET_SIZE if is_for_bucket else IDENTITY_SIZE
    if size <= limit:
        return ""
    what = "bucket" if is_for_bucket else "managed"
    return (
        f"this policy has {size} characters, and AWS takes {limit} in a {what} policy: make several, each "
        "for some of the names (shelf policy --lock FILE NAME …)"
    )


def shares(place: Place, wanted: Iterable[str]) -> list[list[str]]:
    """Return what is wanted in as few lists as there have to be managed policies."""
    found: list[list[str]] = [[]]
    for key in wanted:
        if too_large(policy(place, [*found[-1], key]), is_for_bucket=False):
            found.append([])
        found[-1].append(key)
    return found


def resources(place: Place, wanted: Iterable[str], principals: Sequence[str] = ()) -> dict[str, Any]:
    """Return the same as ``policy``, as resources of a template: managed policies, or a bucket's policy.

    Raises ConfigurationError for what is no principal.
    """
    if principals:
        document = policy(place, wanted, principals)
        properties = {"Bucket": place.bucket, "PolicyDocument": document}
        return {"ReadShelf": {"Type": "AWS::S3::BucketPolicy", "Properties": properties}}
    return dict(managed(n, policy(place, share)) for n, share in enumerate(shares(place, wanted), 1))


def managed(number: int, document: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a managed policy as a resource of a template, and its name there."""
    properties = {"Description": "Reads what is imported from a shelf.", "PolicyDocument": document}
    return f"ReadShelf{number}", {"Type": "AWS::IAM::ManagedPolicy", "Properties": properties}


def as_yaml(value: object) -> Iterator[str]:
    """Yield the lines of a value in YAML, of which JSON's texts and numbers are a part."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            if isinstance(one, Mapping | list):
                yield f"{key}:"
                yield from (f"  {line}" for line in as_yaml(one))
            else:
                yield f"{key}: {json.dumps(one)}"
    elif isinstance(value, list):
        for one in value:
            marks = iter(("- ",))
            yield from (next(marks, "  ") + line for line in as_yaml(one))
    else:
        yield json.dumps(value)
