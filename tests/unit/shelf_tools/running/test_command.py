"""The command line of ``shelf run``, through argparse, as far as what it finds to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from shelf_tools.cli import main


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file with a function that cannot be called: all that it is given is told."""
    path = tmp_path / "file.py"
    path.write_text("def f(lacking): ...\n")
    return str(path)


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ([], ["--"]),
        (["--shelf", "nowhere"], ["--"]),
        (["--update"], ["--shelf", "nowhere", "--"]),
        (["--"], ["--"]),
    ],
)
def test_behind_two_dashes_all_are_the_function_s(
    before: list[str], behind: list[str], path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also directly behind the file, and what the command has an option for."""
    assert main(["run", *before, path, *behind, "--shelf", "x", "--jobs", "y", "--z", "1"]) == 1
    told = capsys.readouterr().err
    assert "f() lacks lacking" in told
    for name in ("shelf", "jobs", "z"):
        assert f"--{name}: f() has no parameter {name}" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "FILE is missing"),
        (["--shelf", "x"], "FILE is missing"),
        (["--"], "FILE is missing"),
        (["--none", "file.py"], "--none"),
        (["-x", "file.py"], "-x"),
    ],
)
def test_without_a_file(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """That is wrong usage."""
    with pytest.raises(SystemExit) as ended:
        main(["run", *words])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
