"""The decorator: what is said is checked at once, and nothing is loaded, fetched or changed."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import subprocess
import sys
from typing import Any

import pytest

import cloudimport
from cloudimport import bootstrap, needing
from cloudimport.errors import ConfigurationError, NotPublishedError
from cloudimport.ids import Pin
from tests.support.children import REPOSITORY


@cloudimport.requirements({})
def add(a: int, b: int = 2) -> int:
    """Add two."""
    return a + b


@cloudimport.requirements({})
async def later() -> str:
    """Come later."""
    return "later"


@cloudimport.requirements({"Six": "1.17.0"})
def needs_six() -> str:
    """Need six."""
    return "called"


def test_the_function_stays_what_it_is() -> None:
    """Name, signature, docstring, pickle, and being awaited."""
    assert (add(1), add.__name__, add.__doc__) == (3, "add", "Add two.")
    assert list(inspect.signature(add).parameters) == ["a", "b"]
    assert pickle.loads(pickle.dumps(add)) is add
    assert inspect.iscoroutinefunction(later)
    assert asyncio.run(later()) == "later"


def test_lines_are_normalised() -> None:
    """Names, versions, extras and ranges; in their order."""
    needs = {"Ruamel_yaml": "1.0.0", "b": "", "A[y,X]": ">= 1, < 2", "c": "==2.*", "d": "v1.0"}
    assert needing.lines(needs) == ("a[x,y]>=1,<2", "b", "c==2.*", "d==1", "ruamel-yaml==1")


def test_all_that_is_wrong_is_told_at_once() -> None:
    """A line each."""
    with pytest.raises(ConfigurationError) as caught:
        cloudimport.requirements({"a b": "", "six": "x y", "c": 1, "D": "1", "d": "2", "e[": ""})  # type: ignore[dict-item]
    lines = str(caught.value).split("\n")
    assert len(lines) == 5
    assert "d is named twice" in lines
    with pytest.raises(ConfigurationError, match="takes a dict"):
        cloudimport.requirements(["six"])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is for functions"):
        cloudimport.requirements({})(3)  # type: ignore[type-var]


def test_an_environment_that_is_installed_has_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does if the pins are there; else the call says what is lacking."""

    class Installed:
        pins = [Pin("six", "1.17")]  # noqa: RUF012

    monkeypatch.setattr(bootstrap, "current", Installed)
    assert needs_six() == "called"
    for pins in ([Pin("six", "1.16")], [Pin("attrs", "1")]):
        Installed.pins = pins
        with pytest.raises(ConfigurationError, match=r"needs_six\(\) needs six==1.17"):
            needs_six()


def test_what_was_not_recorded_is_told_with_the_command() -> None:
    """Nobody has chosen anything for this file."""
    with pytest.raises(NotPublishedError, match=rf"run 'shelf run --record {__file__}'"):
        needs_six()


def test_it_costs_nothing_where_it_is_not_used() -> None:
    """``import cloudimport`` does not load it, and it loads nothing of the runtime that installs."""
    code = (
        "import sys, cloudimport; before = set(sys.modules); print('cloudimport.needing' in before)\n"
        "cloudimport.requirements({'six': '1'})\n"
        "print(sorted(name for name in set(sys.modules) - before if name.startswith('cloudimport')))"
    )
    done: Any = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["False", "['cloudimport.ids', 'cloudimport.needing']"] or (
        done.stdout.split("\n")[:2]
        == ["False", "['cloudimport.ids', 'cloudimport.needing', 'cloudimport.tuples']"]
    )
