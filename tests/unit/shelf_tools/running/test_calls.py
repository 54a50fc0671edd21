"""From words to calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloudimport.errors import ConfigurationError
from shelf_tools.running.calls import Given, Plan, Result, plan, split
from shelf_tools.running.functions import read_program

_OWN = {"--shelf": True, "--update": False}


def planned(folder: Path, text: str, *words: str, function: str = "") -> Plan:
    """Return the plan of a file's text and words."""
    path = folder / "file.py"
    path.write_text(text)
    return plan(read_program(path), function, split(words, _OWN))


def called(folder: Path, text: str, *words: str) -> tuple[list[Any], dict[str, Any]]:
    """Return what the end is called with, results as their functions' names."""
    made = planned(folder, text, *words)
    call = made.calls[made.end]
    return call.filled({name: name for name in call.needs})


@pytest.mark.parametrize(
    ("words", "own", "positional", "named"),
    [
        (["-a", "5", "--arg1", "this"], [], ["5"], {"arg1": "this"}),
        (["--shelf", "s", "--update", "--x=1"], ["--shelf", "s", "--update"], [], {"x": "1"}),
        (
            ["--shelf=s", "--", "--shelf", "t", "--update", "u"],
            ["--shelf=s"],
            [],
            {"shelf": "t", "update": "u"},
        ),
        (["--a", "1", "--args", "2", "-a", "3"], [], ["3"], {"a": "1", "args": "2"}),
        (["-a", "-5", "-a", "--x", "-a=-y", "--n", "-1"], [], ["-5", "--x", "-y"], {"n": "-1"}),
        (["--x=", "--y=--z", "--some-name", "a=b"], [], [], {"x": "", "y": "--z", "some_name": "a=b"}),
        (["--", "--", "1"], None, None, None),
    ],
)
def test_words_are_sorted(
    words: list[str], own: list[str] | None, positional: list[str], named: dict[str, str]
) -> None:
    """Of the command, by place, by name."""
    if own is None:
        with pytest.raises(ConfigurationError):
            split(words, _OWN)
        return
    assert split(words, _OWN) == (own, positional, named)


def test_all_words_that_are_wrong_are_told() -> None:
    """A line each."""
    with pytest.raises(ConfigurationError) as caught:
        split(["stray", "-arg1", "--x", "--y", "1", "--y", "2", "-a"], _OWN)
    assert str(caught.value).split("\n") == [
        "'stray' is no argument: write -a stray, or --name stray",
        "-arg1 is no argument: a named one is --arg1",
        "--x has no value: write --x=VALUE",
        "--y is given twice",
        "-a has no value: write -a=VALUE",
    ]


@pytest.mark.parametrize(
    ("signature", "words", "args", "kwargs"),
    [
        ("a, b=2", ["-a", "1"], [], {"a": 1}),
        ("a, b=2", ["-a", "1", "--b", "x"], [], {"a": 1, "b": "x"}),
        ("a, b", ["--a", "1", "-a", "2"], [], {"a": 1, "b": 2}),
        ("a, /, b", ["-a", "1", "-a", "2"], [1], {"b": 2}),
        ("a, /, **k", ["-a", "1", "--a", "2"], [1], {"a": 2}),
        ("a, *r, k=1", ["-a", "1", "-a", "2", "-a", "[3]", "--k", "null"], [1, 2, [3]], {"k": None}),
        ("*r", [], [], {}),
        ("*, k", ["--k", "NaN"], [], {"k": "NaN"}),
        ("a: str, b: str = None", ["-a", "5", "--b", "null"], [], {"a": "5", "b": "null"}),
        ("self_, args, kwargs", ["-a", '"5"', "--args", "{}", "--kwargs", "1e3"], [], None),
    ],
)
def test_values_get_to_their_parameters(
    tmp_path: Path, signature: str, words: list[str], args: list[Any], kwargs: dict[str, Any] | None
) -> None:
    """As the call in Python would have them."""
    found = called(tmp_path, f"def f({signature}): pass", *words)
    assert found == (args, {"self_": "5", "args": {}, "kwargs": 1000.0} if kwargs is None else kwargs)


def test_results_get_to_their_parameters(tmp_path: Path) -> None:
    """By name or place; a value that is given comes first, and then nothing is run for it."""
    text = "def a(x): pass\ndef b(a, y=1): pass\ndef c(a, b, /, z=2, *r): pass\n"
    made = planned(tmp_path, text, "--x", "7", "--y", "8", "-a", "9", "-a", "10")
    assert list(made.calls) == ["a", "b", "c"]
    assert made.calls["b"].kwargs == {"a": Result("a"), "y": Given(8)}
    assert made.calls["c"].args == (Result("a"), Result("b"), Given(9), Given(10))
    assert made.calls["c"].needs == ("a", "b")
    given = planned(tmp_path, text, "--a", "1")
    assert list(given.calls) == ["b", "c"]
    assert given.calls["c"].args == (Given(1), Result("b"))


def test_a_default_is_no_value_where_a_result_can_be_had(tmp_path: Path) -> None:
    """And a parameter with the function's own name is a parameter."""
    text = "def a(): pass\ndef b(a=1, b=2): pass\n"
    assert planned(tmp_path, text).calls["b"].kwargs == {"a": Result("a")}


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("def f(a, b): pass", ["--a", "1"], ["f() lacks b: give --b VALUE or -a VALUE"]),
        (
            "def f(*, a): pass",
            ["-a", "1"],
            ["f() takes 0 positional arguments (-a) here, and 1 are given", "f() lacks a: give --a VALUE"],
        ),
        (
            "def f(a, /): pass",
            ["--a", "1"],
            ["f() lacks a: give -a VALUE", "--a: f() has no parameter a: there is none"],
        ),
        (
            "def f(value): pass",
            ["--valeu", "1", "-a", "1"],
            ["--valeu: f() has no parameter valeu: there is value"],
        ),
        ("def a(x): pass\ndef b(a): pass", [], ["a() lacks x: give --x VALUE"]),
        (
            "def a(x): pass\ndef b(a): pass",
            ["-a", "1", "--x", "1"],
            ["b() takes 0 positional arguments (-a) here, and 1 are given"],
        ),
        ("def a(): pass\ndef b(x=1, a=2, /): pass", [], ["b() lacks x, which stands before a"]),
        (
            "def a(b): pass\ndef b(a): pass",
            [],
            ["functions need one another's results in a circle: a needs b needs a"],
        ),
        ("def a(): pass\ndef b(): pass", [], ["several functions that no other needs (a, b)"]),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, text: str, words: list[str], said: list[str]) -> None:
    """All of it."""
    with pytest.raises(ConfigurationError) as caught:
        planned(tmp_path, text, *words)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(said)
    for line, one in zip(lines, said, strict=True):
        assert one in line


def test_a_function_that_is_not_there_is_told(tmp_path: Path) -> None:
    """With what is near."""
    with pytest.raises(ConfigurationError, match="has no function laod: it has load"):
        planned(tmp_path, "def load(): pass\ndef other(): pass", function="laod")


def test_long_chains(tmp_path: Path) -> None:
    """A thousand functions are no reason to crash."""
    text = "def f0(): pass\n" + "".join(f"def f{n}(f{n - 1}): pass\n" for n in range(1, 3000))
    try:
        assert len(planned(tmp_path, text).calls) == 3000
    except ConfigurationError as error:
        assert "too many functions" in str(error)
