"""From a command line to calls: what is given to which function, and which result goes on to which.

A parameter that is named as another function of the file is that function's result. Pure.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from cloudimport.errors import ConfigurationError
from shelf_tools.running.functions import Function, Parameter, Program

_KINDS = inspect.Parameter
_BY_PLACE = (_KINDS.POSITIONAL_ONLY, _KINDS.POSITIONAL_OR_KEYWORD)


class Given(NamedTuple):
    """A value that was given."""

    value: Any


class Result(NamedTuple):
    """The result of another function."""

    function: str


Argument = Given | Result


class Call(NamedTuple):
    """A function and what it is called with."""

    function: Function
    args: tuple[Argument, ...]
    kwargs: Mapping[str, Argument]

    @property
    def needs(self) -> tuple[str, ...]:
        """The functions whose results it takes, each once."""
        every = (*self.args, *self.kwargs.values())
        return tuple(dict.fromkeys(one.function for one in every if isinstance(one, Result)))

    def filled(self, results: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and named values, results in their places."""

        def value(one: Argument) -> Any:
            return one.value if isinstance(one, Given) else results[one.function]

        return [value(one) for one in self.args], {name: value(one) for name, one in self.kwargs.items()}


class Plan(NamedTuple):
    """The function whose result is wanted, and all calls that it takes, those that others need first."""

    end: str
    calls: Mapping[str, Call]


class Words(NamedTuple):
    """The words of a command line after the file: of the command itself, and of the function."""

    own: list[str]
    positional: list[str]
    named: dict[str, str]


def split(words: Sequence[str], own: Mapping[str, bool]) -> Words:
    """Sort the words after the file. ``own`` says of each option of the command whether it takes a value.

    ``-a VALUE`` is a positional argument, ``--name VALUE`` or ``--name=VALUE`` a named one, and after ``--``
    all are the function's. Raises ConfigurationError with all that is wrong, one a line.
    """
    found, errors = Words([], [], {}), list[str]()
    left = list(words)
    options: Mapping[str, bool] = own
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if word == "--" and options is own:
            options = {}
        elif name in options:
            found.own.append(word)
            if options[name] and not equals and left:
                found.own.append(left.pop(0))
        elif name == "-a" or (word.startswith("--") and len(name) > 2):
            if not equals and not _is_value(left, name == "-a"):
                errors.append(f"{word} has no value: write {name}=VALUE")
                continue
            _take(found, name, value if equals else left.pop(0), errors)
        else:
            errors.append(_stray(word))
    if errors:
        raise ConfigurationError("\n".join(errors))
    return found


def _is_value(left: Sequence[str], is_positional: bool) -> bool:
    """Whether a value follows: a word that looks like a named argument is meant as one."""
    return bool(left) and (is_positional or not left[0].startswith("--") or left[0].startswith("---"))


def _take(found: Words, name: str, value: str, errors: list[str]) -> None:
    if name == "-a":
        found.positional.append(value)
        return
    key = name[2:].replace("-", "_")
    if key in found.named:
        errors.append(f"{name} is given twice")
    found.named[key] = value


def _stray(word: str) -> str:
    if word.startswith("-") and len(word) > 2 and not word[1:2].isdigit():
        return f"{word} is no argument: a named one is -{word}"
    return f"{word!r} is no argument: write -a {word}, or --name {word}"


def plan(program: Program, wanted: str, words: Words) -> Plan:
    """Return what is to be called for the result of ``wanted`` ("": of the one that no other needs).

    Raises ConfigurationError with all that is wrong, one a line: names that are none, a cycle, arguments that
    are missing or that no function takes.
    """
    end = _end(program, wanted)
    order = _order(program, end, set(words.named))
    binder = _Binder(program, end, words)
    calls = {name: binder.call(program.functions[name]) for name in order}
    errors = [*binder.errors, *binder.surplus(order)]
    if errors:
        raise ConfigurationError("\n".join(errors))
    return Plan(end, calls)


def _needed(program: Program, name: str, given: Collection[str] = ()) -> list[str]:
    """Return the functions whose results a function takes, but for those that are given."""
    parameters = program.functions[name].parameters
    return [one.name for one in parameters if _is_result(program, name, one) and one.name not in given]


def _is_result(program: Program, function: str, parameter: Parameter) -> bool:
    is_single = parameter.kind not in (_KINDS.VAR_POSITIONAL, _KINDS.VAR_KEYWORD)
    return is_single and parameter.name in program.functions and parameter.name != function


def _end(program: Program, wanted: str) -> str:
    functions = program.functions
    if wanted:
        if wanted not in functions:
            near = _near(wanted, functions)
            raise ConfigurationError(f"{program.path} has no function {wanted}: it has {near}")
        return wanted
    taken = {need for name in functions for need in _needed(program, name)}
    ends = [name for name in functions if name not in taken]
    if not ends:
        _order(program, next(iter(functions)), ())
    if len(ends) != 1:
        listed = ", ".join(ends or functions)
        raise ConfigurationError(
            f"{program.path} has several functions that no other needs ({listed}): "
            "say which one with --function NAME"
        )
    return ends[0]


def _near(name: str, names: Collection[str]) -> str:
    return ", ".join(get_close_matches(name, names, 3) or list(names)[:10])


def _order(program: Program, end: str, given: Collection[str]) -> list[str]:
    """Return what has to be called, those that others need first. Raises ConfigurationError for a cycle."""
    done: dict[str, None] = {}
    above: list[str] = []

    def visit(name: str) -> None:
        if name in above:
            ring = [*above[above.index(name) :], name]
            raise ConfigurationError(
                f"{program.path}: functions need one another's results in a circle: {' needs '.join(ring)}"
            )
        if name not in done:
            above.append(name)
            for need in _needed(program, name, given):
                visit(need)
            done[above.pop()] = None

    try:
        visit(end)
    except RecursionError:
        raise ConfigurationError(f"{program.path}: too many functions need one another") from None
    return list(done)


class _Binder:
    """Gives functions their arguments; what goes wrong is collected.

    Positional arguments are the end's; a named one goes to each function with such a parameter.
    """

    def __init__(self, program: Program, end: str, words: Words) -> None:
        self.errors: list[str] = []
        self._program, self._end, self._words = program, end, words
        self._used: set[str] = set()

    def call(self, function: Function) -> Call:
        """Return the call of a function."""
        places = [one for one in function.parameters if one.kind in _BY_PLACE]
        free = [one for one in places if not self._is_decided(function, one)]
        positional = self._words.positional if function.name == self._end else []
        found: dict[str, Argument] = {
            one.name: Given(_value(text, one)) for one, text in zip(free, positional, strict=False)
        }
        rest = self._rest(function, positional[len(free) :], len(free))
        for one in function.parameters:
            if one.name not in found:
                self._decide(function, one, found)
        extra = self._extra(function)
        args = self._by_place(function, places, found, bool(rest))
        return Call(function, (*args, *rest), {**found, **extra})

    def _by_place(
        self, function: Function, places: Sequence[Parameter], found: dict[str, Argument], is_all: bool
    ) -> list[Argument]:
        """Take out what has to be given by its place: what can be given in no other way, or all."""
        taken, skipped = [], ""
        for one in places:
            if one.kind == _KINDS.POSITIONAL_ONLY or is_all:
                if one.name not in found:
                    skipped = skipped or one.name
                    continue
                taken.append(found.pop(one.name))
                if skipped:
                    self.errors.append(f"{function.name}() lacks {skipped}, which stands before {one.name}")
        return taken

    def _is_decided(self, function: Function, one: Parameter) -> bool:
        """Whether a parameter is not for a positional argument."""
        is_named = one.name in self._words.named and one.kind != _KINDS.POSITIONAL_ONLY
        return is_named or _is_result(self._program, function.name, one)

    def _decide(self, function: Function, one: Parameter, found: dict[str, Argument]) -> None:
        if one.kind in (_KINDS.VAR_POSITIONAL, _KINDS.VAR_KEYWORD):
            return
        text = self._words.named.get(one.name)
        is_result = _is_result(self._program, function.name, one)
        if text is not None and (is_result or one.kind != _KINDS.POSITIONAL_ONLY):
            self._used.add(one.name)
            found[one.name] = Given(_value(text, one))
        elif is_result:
            found[one.name] = Result(one.name)
        elif not one.has_default:
            by_place = one.kind in _BY_PLACE and function.name == self._end
            by_name = one.kind != _KINDS.POSITIONAL_ONLY
            ways = [f"--{one.name} VALUE"] * by_name + ["-a VALUE"] * by_place
            how = " or ".join(ways) or "it has to be another function's result"
            self.errors.append(f"{function.name}() lacks {one.name}: give {how}")

    def _rest(self, function: Function, left: Sequence[str], taken: int) -> list[Argument]:
        """Return the positional arguments that have no parameter of their own."""
        catch = _of_kind(function, _KINDS.VAR_POSITIONAL)
        if left and catch is None:
            self.errors.append(
                f"{function.name}() takes {taken} positional arguments (-a) here, and "
                f"{taken + len(left)} are given"
            )
        return [Given(_value(text, catch)) for text in left] if catch else []

    def _extra(self, function: Function) -> dict[str, Argument]:
        """Return the named arguments of the end that it has no parameter for, if it takes such."""
        catch = _of_kind(function, _KINDS.VAR_KEYWORD) if function.name == self._end else None
        if catch is None:
            return {}
        own = {one.name for one in function.parameters if one.kind != _KINDS.POSITIONAL_ONLY} - {catch.name}
        names = [name for name in self._words.named if name not in own | self._used]
        self._used |= set(names)
        return {name: Given(_value(self._words.named[name], catch)) for name in names}

    def surplus(self, order: Sequence[str]) -> list[str]:
        """Return a line for each named argument that nothing takes."""
        single = [
            one.name
            for name in order
            for one in self._program.functions[name].parameters
            if one.kind in (_KINDS.POSITIONAL_OR_KEYWORD, _KINDS.KEYWORD_ONLY)
        ]
        return [
            f"--{name}: {', '.join(f'{one}()' for one in order)} has no parameter {name}: "
            f"there is {_near(name, list(dict.fromkeys(single))) or 'none'}"
            for name in self._words.named
            if name not in self._used
        ]


def _of_kind(function: Function, kind: inspect._ParameterKind) -> Parameter | None:
    return next((one for one in function.parameters if one.kind == kind), None)


def _value(text: str, parameter: Parameter) -> Any:
    """Return what a word of the command line means: JSON, else text; always text for ``str``."""
    if parameter.is_text:
        return text
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(name: str) -> Any:
    """Refuse NaN and infinities, which Python reads and JSON has not (RFC 8259, section 6)."""
    raise ValueError(name)
