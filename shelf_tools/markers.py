"""Markers as text (PEP 508, PEP 751): those that tell targets apart, and extras and groups decided.

Nothing is eval'ed: a marker is read as ``or`` of ``and`` of comparisons.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Target

_TOKEN = re.compile(r"""\s*("[^"]*"|'[^']*'|[()]|[<>=!~]+|[A-Za-z_.][A-Za-z0-9_.]*)""")
#: Lists that PEP 751 adds to the variables of a marker.
_LISTS = ("extras", "dependency_groups")


class AlikeError(ConfigurationError):
    """No marker tells ``one`` target from the ``other``: they differ by their C library only."""

    def __init__(self, one: Target, other: Target) -> None:
        super().__init__(f"no marker tells {one} from {other}: they differ by their C library only")
        self.one, self.other = one, other


def telling(some: Collection[Target], among: Iterable[Target]) -> str:
    """Return a marker that holds for ``some`` of the targets and for no other ``among`` them.

    "" if they are all of them. It asks for Python's version, else for the machine, else for both.
    Raises AlikeError if there is none.
    """
    others = [target for target in among if target not in some]
    if not others:
        return ""
    for key in (_python, _machine, _both):
        ours = list(dict.fromkeys(map(key, sorted(some))))
        if not set(ours) & set(map(key, others)):
            return _joined(ours)
    raise next(AlikeError(a, b) for a in sorted(some) for b in others if _both(a) == _both(b))


def exactly(some: Collection[Target]) -> str:
    """Return a marker that holds for these targets, whatever C library, and for no other."""
    return _joined(list(dict.fromkeys(map(_both, sorted(some)))))


def _joined(parts: Sequence[str]) -> str:
    return parts[0].strip("()") if len(parts) == 1 else " or ".join(parts)


def _python(target: Target) -> str:
    return f'python_version == "{target.python[0]}.{target.python[1]}"'


def _machine(target: Target) -> str:
    return f'platform_machine == "{target.machine}"'


def _both(target: Target) -> str:
    return f"({_python(target)} and {_machine(target)})"


def decided(marker: str, extras: Collection[str], groups: Collection[str]) -> str | None:
    """Return a marker without the lists ``extras`` and ``dependency_groups``: ``"x" in extras`` is decided.

    "" if it always holds, None if it never does. ``marker`` is a valid one, and names are normalised.
    Raises ConfigurationError for a use of the lists that PEP 751 does not have.
    """
    tokens = _TOKEN.findall(marker)
    if not set(tokens).intersection(_LISTS):
        return marker
    found = _Decider(tokens, {"extras": extras, "dependency_groups": groups}).either()
    return ("" if found else None) if isinstance(found, bool) else found


class _Decider:
    """Reads a marker from left to right; a part is its text, or a bool where it is decided."""

    def __init__(self, tokens: Sequence[str], lists: dict[str, Collection[str]]) -> None:
        self._left = list(reversed(tokens))
        self._lists = lists

    def either(self) -> str | bool:
        """Return the parts that ``or`` joins."""
        return self._parts("or", self._all, decides=True)

    def _all(self) -> str | bool:
        return self._parts("and", self._one, decides=False)

    def _parts(self, word: str, part: Callable[[], str | bool], *, decides: bool) -> str | bool:
        parts = [part()]
        while self._left and self._left[-1] == word:
            self._left.pop()
            parts.append(part())
        if decides in parts:
            return decides
        texts = [text for text in parts if isinstance(text, str)]
        return f" {word} ".join(texts) if texts else not decides

    def _one(self) -> str | bool:
        if self._left[-1] == "(":
            self._left.pop()
            inner = self.either()
            self._left.pop()
            return f"({inner})" if isinstance(inner, str) and " or " in inner else inner
        left, operator = self._left.pop(), self._left.pop()
        if operator == "not":
            operator = f"not {self._left.pop()}"
        right = self._left.pop()
        if left not in self._lists and right not in self._lists:
            return f"{left} {operator} {right}"
        if right not in self._lists or operator not in ("in", "not in") or left[0] not in "\"'":
            raise ConfigurationError(
                f"'{left} {operator} {right}' is not what PEP 751 has: \"name\" in {right}"
            )
        return (left[1:-1] in self._lists[right]) == (operator == "in")
