"""The exec wrapper, run by ``sh`` with commands that say what they were given."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

import lambda_layer

WRAPPER = Path(lambda_layer.__file__).with_name("cloudimport-exec")
#: Stands for Python: says what it would run, and the variables.
SAY = ("/bin/sh", "-c", 'for one in "$@"; do echo "argument $one"; done; env', "say")


def _run(environ: Mapping[str, str], *command: str) -> tuple[list[str], dict[str, str]]:
    """Run the wrapper as the runtime does; returns the arguments and variables that came through."""
    ran = subprocess.run(
        [WRAPPER, *(command or SAY), "/var/runtime/bootstrap.py"],
        env={"PATH": "/usr/bin:/bin", "_HANDLER": "app.handler", **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ran.stdout.splitlines()
    arguments = [line[9:] for line in lines if line.startswith("argument ")]
    return arguments, dict(line.split("=", 1) for line in lines if "=" in line)


def _wrapper(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_handler_is_replaced() -> None:
    """The runtime gets ours, and ours the function's; the command is run as it was given."""
    arguments, environ = _run({})
    assert arguments == ["/var/runtime/bootstrap.py"]
    assert (environ["_HANDLER"], environ["CLOUDIMPORT_HANDLER"]) == ("cloudimport.handler", "app.handler")
    assert "PYTHONPATH" not in environ  # else the runtime would leave /opt/python out


def test_twice_is_as_once() -> None:
    """Run again, by another wrapper or with the redirect set already, it leaves the handler's name."""
    _, environ = _run({}, str(WRAPPER), *SAY)
    assert environ["CLOUDIMPORT_HANDLER"] == "app.handler"
    _, environ = _run({"_HANDLER": "cloudimport.handler", "CLOUDIMPORT_HANDLER": "pkg/app.main"})
    assert environ["CLOUDIMPORT_HANDLER"] == "pkg/app.main"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("/var/task/vendor", "/var/task/vendor:/opt/python"),
        ("", "/opt/python"),
        ("/a:/opt/python:/b", "/a:/opt/python:/b"),
        ("/opt/pythonic", "/opt/pythonic:/opt/python"),
    ],
)
def test_python_path_of_the_function(given: str, wanted: str) -> None:
    """Where the function sets PYTHONPATH, the runtime does not look for layers: ours is added."""
    _, environ = _run({"PYTHONPATH": given})
    assert environ["PYTHONPATH"] == wanted


@pytest.mark.parametrize("separator", [":", " ", "  "])
def test_others_run_next(separator: str, tmp_path: Path) -> None:
    """In order, each around what follows it, with our handler and no list any more."""
    first = _wrapper(tmp_path / "first", 'export ORDER="$ORDER 1 $_HANDLER"; exec "$@"')
    second = _wrapper(tmp_path / "second", 'export ORDER="$ORDER 2"; exec "$@" "two  words"')
    arguments, environ = _run({"CLOUDIMPORT_EXEC_WRAPPER": f"{first}{separator}{second}"})
    assert environ["ORDER"] == " 1 cloudimport.handler 2"
    assert arguments == ["/var/runtime/bootstrap.py", "two  words"]
    assert "CLOUDIMPORT_EXEC_WRAPPER" not in environ


def test_another_runs_ours(tmp_path: Path) -> None:
    """One that came first and has taken the handler's place: its handler is what we stand for."""
    theirs = 'export THEIR_HANDLER="$_HANDLER" _HANDLER=theirs.handler'
    theirs = _wrapper(tmp_path / "theirs", f'{theirs}; exec "{WRAPPER}" "$@"')
    ran = subprocess.run(
        [theirs, *SAY], env={"_HANDLER": "app.handler"}, capture_output=True, text=True, check=True
    )
    assert {
        "THEIR_HANDLER=app.handler",
        "CLOUDIMPORT_HANDLER=theirs.handler",
        "_HANDLER=cloudimport.handler",
    } <= set(ran.stdout.splitlines())


@pytest.mark.parametrize("kind", ["missing", "folder", "not executable"])
def test_a_wrapper_that_cannot_run(kind: str, tmp_path: Path) -> None:
    """It is named, in one line, before anything is started."""
    other = tmp_path / "other"
    if kind == "folder":
        other.mkdir()
    elif kind == "not executable":
        other.write_text("#!/bin/sh\n")
    good = _wrapper(tmp_path / "good", "echo started")
    ran = subprocess.run(
        [WRAPPER, *SAY],
        env={"CLOUDIMPORT_EXEC_WRAPPER": f"{good}:{other}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (127, "")
    assert ran.stderr == (
        f"cloudimport-exec: CLOUDIMPORT_EXEC_WRAPPER names '{other}', which is no executable file: "
        "attach its layer or unset it\n"
    )


def test_names_are_not_patterns(tmp_path: Path) -> None:
    """A star in a name is a star."""
    _wrapper(tmp_path / "good", "echo started")
    ran = subprocess.run(
        [WRAPPER, *SAY],
        env={"CLOUDIMPORT_EXEC_WRAPPER": f"{tmp_path}/g*"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 127
