"""JSON without the ``json`` package, which brings ``re`` and ``enum`` along: 5 ms of a start of 15.

Reads by the C scanner that ``json`` itself uses (the module ``_json``, private to CPython); what that does
not take at once, ``json`` gets, whose errors are the ones to show. Import budget: ``_json``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    import _json
except ImportError:  # a CPython that was built without it
    _json = None  # type: ignore[assignment]

_WHITESPACE = " \t\n\r"


class _Context:
    """What the scanner asks ``json.JSONDecoder`` for."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int

    @staticmethod
    def parse_constant(name: str) -> float:
        """``NaN`` and ``Infinity``, as ``json`` reads them."""
        return float(name)


_scan: Any = _json.make_scanner(_Context) if hasattr(_json, "make_scanner") else None  # type: ignore[arg-type]


def loads(data: str | bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError or RecursionError, as ``json.loads`` does."""
    if _scan is not None:
        try:
            text = (data if isinstance(data, str) else data.decode()).strip(_WHITESPACE)
            value, end = _scan(text, 0)
        except (StopIteration, ValueError, SystemError):
            pass  # SystemError: up to 3.11 it has no error of its own unless ``json`` is loaded
        else:
            if end == len(text):
                return value
    import json

    return json.loads(data)


def dumps(value: Any) -> str:
    """Return the JSON text of dicts with string keys, lists, strings, numbers, booleans and None."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(name)}: {dumps(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(dumps, value)) + "]"
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        text = repr(value)
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}.get(text, text)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _text(value: str) -> str:
    quote: Any = getattr(_json, "encode_basestring_ascii", None)
    if quote is None:
        from json.encoder import py_encode_basestring_ascii as quote
    quoted: str = quote(value)
    return quoted
