"""JSON read and written without the ``json`` package is the same JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudimport.format import jsontext
from tests.support.children import REPOSITORY

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(PLAIN)
def test_same_as_json(value: Any) -> None:
    """What one writes the other reads."""
    text = json.dumps(value)
    assert jsontext.loads(text) == value
    assert jsontext.loads(f" \n{text}\t".encode()) == value
    assert json.loads(jsontext.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", "[1,]", "1 2", '"\n"', "nul", "[1}", '{"a" 1}', "\ufeff1", "NaN", "[Infinity]", "-", "01"],
)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_same_errors(text: str, as_bytes: bool) -> None:
    """What is no JSON is refused with the same words."""
    data = text.encode() if as_bytes else text
    try:
        expected = json.loads(data)
    except ValueError as error:
        with pytest.raises(ValueError) as raised:
            jsontext.loads(data)
        assert str(raised.value) == str(error)
    else:
        assert repr(jsontext.loads(data)) == repr(expected)


def test_errors_where_json_is_not_loaded() -> None:
    """The scanner takes its errors from ``json``, which a process that starts has not loaded."""
    code = """
        import sys
        from cloudimport.format import jsontext
        assert "json" not in sys.modules
        for text in ('{"a', '"\\\\x"', '[1', '{"a": 1 "b"}', '"\\n"'):
            try:
                print(jsontext.loads(text))
            except ValueError as error:
                print(type(error).__name__)
            for name in [name for name in sys.modules if name.partition(".")[0] == "json"]:
                del sys.modules[name]
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert done.stdout.split() == ["JSONDecodeError"] * 5, done.stderr


def test_too_deep() -> None:
    """Nesting that no record has ends in the error that ``json`` raises."""
    with pytest.raises(RecursionError):
        jsontext.loads("[" * 100_000)


def test_without_the_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CPython's private module lacks it, ``json`` is used."""
    monkeypatch.setattr(jsontext, "_scan", None)
    monkeypatch.setattr(jsontext, "_json", None)
    assert jsontext.loads('{"a": [1]}') == {"a": [1]}
    assert jsontext.dumps({"a": ['"', 1.5, None, True]}) == '{"a": ["\\"", 1.5, null, true]}'


def test_what_has_no_form() -> None:
    """Other types are an error, as with ``json``."""
    with pytest.raises(TypeError, match="set has no JSON form"):
        jsontext.dumps({"a": {1}})
