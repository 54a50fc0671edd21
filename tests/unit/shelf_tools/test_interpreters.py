"""Finding an interpreter for a target."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Target
from shelf_tools import interpreters
from shelf_tools.interpreters import check_given, find_interpreter, running_interpreter, runs_here

MINE = Target((sys.version_info[0], sys.version_info[1]), (2, 28), os.uname().machine)


def test_running_interpreter_is_its_base() -> None:
    """The running interpreter is found outside its virtual environment, with its magic number."""
    import importlib.util

    found = find_interpreter(MINE)
    assert found == running_interpreter()
    assert found is not None
    assert found.prefix == Path(sys.base_prefix).resolve()
    assert found.executable.is_relative_to(found.prefix)
    assert found.magic == importlib.util.MAGIC_NUMBER.hex()
    assert found.version == tuple(sys.version_info[:3])
    assert found.cache_tag == sys.implementation.cache_tag


def test_other_machine_is_compiled_for_and_not_run() -> None:
    """For a target of another machine the same interpreter compiles; it cannot import what is for it."""
    other = MINE._replace(machine="aarch64" if MINE.machine == "x86_64" else "x86_64")
    assert find_interpreter(other) == find_interpreter(MINE)
    assert (runs_here(MINE), runs_here(other)) == (True, False)


def test_one_that_was_given_comes_first(tmp_path: Path) -> None:
    """An interpreter that the curator names is taken for targets of its version, and for no others."""
    found = find_interpreter(MINE)
    assert found is not None
    link = tmp_path / "mine"
    link.symlink_to(found.executable)
    other = MINE._replace(python=(3, 14 if MINE.python[1] != 14 else 13))
    assert find_interpreter(MINE, [tmp_path / "none", link]) == found
    check_given([link], [other, MINE])
    with pytest.raises(
        ConfigurationError, match=rf"{link} is not a CPython .* published for: {other.python[0]}"
    ):
        check_given([link], [other])
    with pytest.raises(ConfigurationError, match="none is not a CPython"):
        check_given([tmp_path / "none"], [MINE])


def test_pyenv_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pyenv keeps is found without its shims, the newest patch release by name first."""
    for version in ("3.14.1", "3.14.0", "3.13.0"):
        folder = tmp_path / "versions" / version / "bin"
        folder.mkdir(parents=True)
        (folder / f"python{version[:4]}").touch()
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "elsewhere" / "3.11"))
    found = interpreters._kept((3, 14), {"PYENV_ROOT": str(tmp_path)})
    assert [path.parts[-3] for path in found] == ["3.14.1", "3.14.0"]
    assert interpreters._kept((3, 14), {"HOME": str(tmp_path / "home")}) == []


@pytest.mark.parametrize(
    "change",
    [{"implementation": "pypy"}, {"version": [3, 9, 1]}, {"flags": "t"}, {"machine": "s390x"}],
    ids=str,
)
def test_what_does_not_fit_is_not_taken(tmp_path: Path, change: dict[str, object]) -> None:
    """Another implementation, version or machine, or a free-threaded build, is not what is looked for."""
    import json

    said = {
        "implementation": "cpython",
        "version": [*MINE.python, 1],
        "flags": "",
        "machine": MINE.machine,
        "executable": str(tmp_path / "fake"),
        "prefix": str(tmp_path),
        "magic": "00",
    }
    assert interpreters._probe(fake(tmp_path / "right", json.dumps(said)), MINE.python) is not None
    assert interpreters._probe(fake(tmp_path / "wrong", json.dumps({**said, **change})), MINE.python) is None


@pytest.mark.parametrize("said", ["", "{", "no json"])
def test_what_does_not_answer_is_not_taken(tmp_path: Path, said: str) -> None:
    """A program that answers nonsense, or does not exist, is no interpreter."""
    assert interpreters._probe(fake(tmp_path / "odd", said), MINE.python) is None
    assert interpreters._probe(tmp_path / "absent", MINE.python) is None


def fake(path: Path, said: str) -> Path:
    """Write a program that says ``said``, whatever it is asked."""
    path.write_text(f"#!/bin/sh\ncat <<'E'\n{said}\nE\n")
    path.chmod(0o755)
    return path


def test_missing_uv_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uv, and with nothing beside the running interpreter, there is just none."""
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setattr(interpreters, "_kept", lambda python: [])
    minor = 10 if MINE.python[1] != 10 else 11
    assert find_interpreter(MINE._replace(python=(3, minor))) is None
