"""The record of ``shelf run``."""

from __future__ import annotations

import json

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.format.records import Ref
from cloudimport.format.runlock import Found, Recorded, RunLock
from cloudimport.ids import Pin

_TARGET = "cp312-manylinux_2_28_x86_64"
_FOUND = Found(Ref("a" * 64, 1, 2), {Pin("six", "1.17"): "b" * 64})
_RECORD = RunLock("s3://b/s", (Recorded(("six",), {_TARGET: _FOUND}), Recorded((), {})))


def test_it_reads_what_it_writes() -> None:
    """And makes a lock of it."""
    read = RunLock.decode(_RECORD.encode(), "f.lock")
    assert sorted(read.environments) == sorted(_RECORD.environments)
    assert read.found(("six",)) == {_TARGET: _FOUND}
    assert read.found(("other",)) == {}
    lock = read.lock(("six",))
    assert lock is not None
    assert (lock.shelf, lock.requirements, lock.targets) == ("s3://b/s", ("six==1.17",), {_TARGET: _FOUND[0]})
    assert read.lock(("other",)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"kind": "lock"},
        {"environments": 1},
        {"environments": [{}]},
        {"environments": [{"needs": [1], "targets": {}}]},
        {"environments": [{"needs": [], "targets": {"x": {}}}]},
        {"environments": [{"needs": [], "targets": {_TARGET: {"index": ["a" * 64, 1, 2], "contents": []}}}]},
        {"environments": [{"needs": [], "targets": {_TARGET: {"index": [1], "contents": {}}}}]},
        {
            "environments": [
                {"needs": [], "targets": {_TARGET: {"index": ["a" * 64, 1, 2], "contents": {"x": "1"}}}}
            ]
        },
    ],
)
def test_what_is_malformed_is_told_with_the_way_out(change: dict[str, object]) -> None:
    """One line that names the file."""
    record = {**json.loads(_RECORD.encode()), **change}
    with pytest.raises(ConfigurationError, match=r"f\.lock .*--update"):
        RunLock.decode(json.dumps(record), "f.lock")
