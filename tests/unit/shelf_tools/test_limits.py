"""The table of limits: values read and shown, and which limit an ended run is told to have passed."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from shelf_tools.limits import (
    BUILD,
    GIB,
    INSTALL,
    MIB,
    STAGES,
    TABLE,
    TRACE,
    Limit,
    Limits,
    StageLimits,
    explain,
    flag,
    from_table,
    parse,
    show,
    suspect,
)
from shelf_tools.process import Finished

BY_NAME = {limit.name: limit for limit in TABLE}
SECURITY = Path(__file__).parents[3] / "docs" / "security.md"


def test_the_table_has_every_limit_once() -> None:
    """Each field of Limits is a row, so that none is without flag, key and words."""
    assert sorted(limit.field for limit in TABLE) == sorted(f.name for f in dataclasses.fields(Limits))
    assert len(BY_NAME) == len(TABLE)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("memory", "2GiB", 2 * GIB),
        ("memory", "512 MiB", 512 * MIB),
        ("memory", "1g", GIB),
        ("memory", "4096", 4096),
        ("cpu-time", "90", 90),
        ("cpu-time", "15min", 900),
        ("wall-time", "1h", 3600),
        ("processes", "16", 16),
    ],
)
def test_values_are_read(name: str, text: str, value: int) -> None:
    """Sizes are binary, times are seconds without a unit; what is shown is read again."""
    assert parse(BY_NAME[name], text) == value
    assert parse(BY_NAME[name], show(BY_NAME[name], value)) == value


@pytest.mark.parametrize("text", ["", "0", "-1", "2.5GiB", "lots", "9" * 15 + "G", "1min", "0x10"])
def test_values_that_are_none(text: str) -> None:
    """Zero, signs, fractions and other units are refused with an example."""
    with pytest.raises(ConfigurationError, match="write such as 2GiB or 512MiB"):
        parse(BY_NAME["memory"], text)


def test_every_default_is_shown_and_read_again() -> None:
    """The help shows each default as it could be given."""
    for stage in STAGES:
        for limit in stage.table:
            value = getattr(stage.limits, limit.field)
            assert parse(limit, show(limit, value)) == value


def test_builds_may_use_more_than_installs() -> None:
    """Compilers need more than unpacking does."""
    for limit in TABLE:
        assert getattr(BUILD.limits, limit.field) >= getattr(INSTALL.limits, limit.field)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"istall": {}}, "there are tables for fetch, install, trace, build"),
        ({"fetch": {"processes": 3}}, "x.fetch: there are the keys memory, wall-time, largest-file, and no"),
        ({"install": 3}, "x.install: there are the keys memory"),
        ({"install": {"memroy": 1}}, "x.install: there are the keys memory"),
        ({"install": {"memory": 1.5}}, "x.install: memory has to be a number, or such as"),
        ({"install": {"memory": True}}, "x.install: memory has to be"),
        ({"install": {"memory": "lots"}}, "x.install: memory: 'lots' is no bytes"),
        ({"install": {"processes": -1}}, "x.install: processes: '-1' is no number"),
        ([], "there are tables for"),
    ],
)
def test_wrong_tables(tables: object, said: str) -> None:
    """A key or value that is not known is an error that says where it stands."""
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        from_table("x", tables)


def test_what_comes_first_wins() -> None:
    """A flag is put before the file, and the file before the default."""
    found = StageLimits.of({"trace": {"memory": 5}}, {"trace": {"memory": 6, "files": 7}})
    assert (found.trace.memory_bytes, found.trace.output_files) == (5, 7)
    assert found.install == INSTALL.limits


def ended(status: int, text: str = "", struck: str = "", timed_out: bool = False, **seen: int) -> Finished:
    """Return what a run left."""
    return Finished(status, b"", text.encode(), timed_out, struck, seen)


@pytest.mark.parametrize(
    ("finished", "said"),
    [
        (ended(-9, struck="memory_bytes"), "used more than 2 GiB of memory"),
        (ended(-9, timed_out=True), "took longer than 15 min"),
        (ended(152), "took more than 15 min of processor time"),
        (ended(-24), "took more than 15 min of processor time"),
        (ended(137, cpu_seconds=900), "took more than 15 min of processor time"),
        (ended(153), "wrote a file of more than 3 GiB"),
        (ended(1, "MemoryError", data_bytes=2 * GIB - MIB), "used more than 2 GiB of memory"),
        (ended(1, "MemoryError", address_bytes=4 * GIB), "used more than 4 GiB of address space"),
        (ended(1, "MemoryError", data_bytes=int(1.2 * GIB)), "probably used more than 2 GiB of memory"),
        (
            ended(1, "[Errno 28] No space left on device", scratch_bytes=64 * MIB),
            "wrote more than 64 MiB of temp",
        ),
        (
            ended(1, "[Errno 28] No space", output_files=199_000, output_bytes=9),
            "made more than 200000 files",
        ),
        (ended(137, oom_kills=1), "was killed while it was installed, since this machine ran out of memory"),
        (ended(1, "can't start new thread"), "probably had more than 16 processes and threads"),
        (ended(1, "can't start new thread", processes=16), "had more than 16 processes and threads"),
        (ended(1, "OSError: [Errno 24] Too many open files"), "probably had more than 256 open files"),
    ],
)
def test_the_limit_that_ended_a_run(finished: Finished, said: str) -> None:
    """The kernel's and the guard's word is certain, a text alone is a guess and said to be one."""
    assert explain(finished, INSTALL.limits, INSTALL).startswith(said)


def test_a_piece_that_was_never_seen_could_be_either() -> None:
    """Memory that could not be had in one piece leaves open which of two limits it was: both are named."""
    said = suspect("MemoryError", TRACE.limits, TRACE, {})
    assert said == (
        "probably used more than 4 GiB of memory while it was imported (--trace-memory), "
        "or more than 12 GiB of address space (--trace-address-space)"
    )


@pytest.mark.parametrize(
    "finished",
    [
        ended(1, "ValueError: no"),
        ended(137),
        ended(139),
        ended(1, "No space left on device", output_bytes=0, output_files=2, scratch_bytes=0),
    ],
)
def test_what_no_limit_ended(finished: Finished) -> None:
    """An error of the package's own, or a full folder whose size is nobody's to choose, is no limit."""
    assert explain(finished, INSTALL.limits, INSTALL) == ""


def _row(limit: Limit) -> str:
    values = " | ".join(
        show(limit, getattr(stage.limits, limit.field)) if limit in stage.table else "" for stage in STAGES
    )
    return f"| `{limit.name}` | {limit.help} | {values} |".replace("|  |", "| |")


def test_the_documented_table_is_the_table() -> None:
    """docs/security.md has each limit with what it bounds and its defaults."""
    text = SECURITY.read_text(encoding="utf-8")
    for limit in TABLE:
        assert _row(limit) in text
    assert flag(INSTALL, TABLE[0]) in text
