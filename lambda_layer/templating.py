"""CloudFormation and SAM templates, filled in for a lockfile. What is in the folder ``templates`` is text.

In a line ``# + name`` the file ``name.yaml`` is put, or what is made here; ``@WORD@`` is a value of
the call. Limits: "IAM and AWS STS quotas", IAM user guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cloudimport.errors import ConfigurationError
from cloudimport.format import keys
from cloudimport.format.lock import Lock
from cloudimport.ids import Target
from shelf_tools.policy import Place, as_yaml, keys_of_lock, managed, shares

KINDS = ("sam", "cloudformation", "publisher", "runner")
#: What may be read if no lockfile says it: any environment of the shelf.
EVERYTHING = ("packages/*", "envs/*", keys.STATUS)
#: Managed policies that a role may have; characters of a bucket's name, at most.
_POLICIES, _BUCKET_NAME = 10, 63
#: A region whose partition has a long name.
_LONGEST = "us-gov-west-1"
_FOLDER = Path(__file__).parent / "templates"
_PART = re.compile(r"^ *# \+ (\w+)\n", re.MULTILINE)
_WORD = re.compile(r"@([A-Z]+)@")
#: What the templates take as a prefix; a policy takes other characters for wildcards and variables.
_PREFIX = re.compile(r"([A-Za-z0-9!_.'()=,@+-]+/)*\Z")
#: How Lambda calls the machines of targets.
_ARCHITECTURES = {"aarch64": "arm64", "x86_64": "x86_64"}


class Filling(NamedTuple):
    """What a template is filled in with.

    ``bucket``: its name, "" for one that CloudFormation makes up. ``prefix``: of the shelf in it, with a
    slash at its end. ``has_bucket``: whether the stack makes it. ``readable``: the keys, and prefixes that
    end in ``/*``, that the function reads. ``code``, ``layer``: paths, relative to the template.
    """

    bucket: str = ""
    prefix: str = "shelf/"
    has_bucket: bool = True
    readable: Sequence[str] = EVERYTHING
    runtime: str = "python3.12"
    architecture: str = "arm64"
    code: str = "function/"
    layer: str = "layer.zip"


def template(kind: str, filling: Filling) -> str:
    """Return the text of a template. Raises ConfigurationError for what AWS would not take."""
    made = {
        "readers": "".join(f"  {line}\n" for line in as_yaml(_policies(filling))) + "\n",
        "name": f'      BucketName: "{filling.bucket}"\n' if filling.bucket else "",
        # A parameter or a resource: ``!Ref ShelfBucket`` is the bucket's name in either case.
        "place" if filling.has_bucket else "bucket": "",
    }
    words = {
        "BUCKET": filling.bucket,
        "PREFIX": filling.prefix,
        "RUNTIME": filling.runtime,
        "ARCHITECTURE": filling.architecture,
        "CODE": _quotable(filling.code),
        "LAYER": _quotable(filling.layer),
    }
    return _WORD.sub(lambda match: words[match[1]], _assembled(kind, made))


def _assembled(name: str, made: Mapping[str, str]) -> str:
    """Return the text of a part, with its parts in it."""
    text = made.get(name)
    if text is not None:
        return text
    text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    return _PART.sub(lambda match: _assembled(match[1], made), text)


def _quotable(text: str) -> str:
    """Return a path as it stands between double quotes in YAML, of which JSON's strings are some."""
    import json

    return json.dumps(text)[1:-1]


def _policies(filling: Filling) -> dict[str, Any]:
    """Return the resources that let the function read, each of a size that AWS takes in any bucket."""
    found = shares(Place("b" * _BUCKET_NAME, filling.prefix, _LONGEST), filling.readable)
    if len(found) > _POLICIES:
        raise ConfigurationError(
            f"reading this takes {len(found)} policies, and a role has {_POLICIES} at most: let it read all "
            "packages of the shelf (--shelf without --lock)"
        )
    policies = dict(managed(number, _document(share)) for number, share in enumerate(found, 1))
    for one in policies.values():
        one["Properties"]["Roles"] = [{"Ref": "Role"}]
    return policies


def _document(readable: Iterable[str]) -> dict[str, Any]:
    where = "arn:${AWS::Partition}:s3:::${ShelfBucket}/${ShelfPrefix}"
    found = [{"Fn::Sub": where + key} for key in readable]
    statement = {"Sid": "ReadShelf", "Effect": "Allow", "Action": "s3:GetObject", "Resource": found}
    return {"Version": "2012-10-17", "Statement": [statement]}


def filling(locks: Sequence[Lock], shelf: str, environ: Mapping[str, str], target: Target | None) -> Filling:
    """Return what a template is filled in with for lockfiles, for a shelf, or for neither.

    ``locks``: the function's, then those of its versions that still run or that one may go back to: each
    has an index of its own. ``shelf``: its URL, "" for the first lockfile's. ``target``: of the function;
    None for the one that the first lockfile has. Raises ConfigurationError.
    """
    url = shelf or (locks[0].shelf if locks else "")
    if locks and not url:
        raise ConfigurationError("the lockfile names no shelf: say which with --shelf s3://bucket/prefix")
    found = _at(Place.of(url, environ)) if url else Filling()
    if not locks:
        return _for(found, target) if target else found
    needed = {key for lock in locks for key in keys_of_lock(lock, ())}
    readable = sorted(needed, key=lambda key: (not key.startswith("packages/"), key))
    return _for(found, _of_lock(locks[0], target))._replace(readable=readable)


def _at(place: Place) -> Filling:
    prefix = f"{place.prefix}/" if place.prefix else ""
    if not _PREFIX.match(prefix):
        raise ConfigurationError(
            f"{place.prefix!r}: templates take prefixes of letters, digits and !_.'()=,@+- only"
        )
    return Filling(place.bucket, prefix, has_bucket=False)


def _of_lock(lock: Lock, wanted: Target | None) -> Target:
    """Return which of Lambda's machines a lockfile is for, or check that it is for the wanted one."""
    there = sorted({_of_lambda(target) for target in map(Target.parse, lock.targets) if _runs_there(target)})
    fitting = [target for target in there if wanted in (None, target)]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(map(_alias, there)) or "none"
    if wanted:
        raise ConfigurationError(f"the lockfile is not for {_alias(wanted)}; of Lambda's it is for: {known}")
    raise ConfigurationError(
        f"say --python and --arch of the function: of Lambda's the lockfile is for: {known}"
    )


def _alias(target: Target) -> str:
    return f"lambda-python{target.python[0]}.{target.python[1]}-{_ARCHITECTURES[target.machine]}"


def _of_lambda(target: Target) -> Target:
    return Target.parse(_alias(target))


def _runs_there(target: Target) -> bool:
    return target.glibc <= _of_lambda(target).glibc


def _for(found: Filling, target: Target) -> Filling:
    version = f"python{target.python[0]}.{target.python[1]}"
    return found._replace(runtime=version, architecture=_ARCHITECTURES[target.machine])
