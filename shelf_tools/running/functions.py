"""What a Python file with functions says, read and never run: their names, parameters and requirements.

``ast`` reads it as the running interpreter does. A decorator counts if it is ``cloudimport.requirements``,
under whatever name it was imported, or ``requirements`` where the file defines no such name.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Dependency

from cloudimport import needing
from cloudimport.errors import ConfigurationError

#: Bytes of a file, at the most: it travels in an event of Lambda, which has 6 MB.
MOST = 4 << 20
_DECORATOR = "requirements"
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Parameter(NamedTuple):
    """A parameter: its kind as ``inspect`` has it; ``is_text`` if its annotation is ``str``."""

    name: str
    kind: inspect._ParameterKind
    has_default: bool
    is_text: bool


class Function(NamedTuple):
    """A function of a file: ``needs`` as ``needing.lines`` has them; ``is_declared`` if it is decorated."""

    name: str
    line: int
    needs: tuple[str, ...]
    is_declared: bool
    parameters: tuple[Parameter, ...]


class Program(NamedTuple):
    """A file, its bytes, and those of its functions that can be run, in their order.

    They are those that say what they need, or all public ones if none does.
    """

    path: Path
    data: bytes
    functions: Mapping[str, Function]


def read_program(path: Path) -> Program:
    """Return what a file has. Raises ConfigurationError with all that is wrong, one a line, and OSError."""
    data = path.read_bytes()
    if len(data) > MOST:
        raise ConfigurationError(f"{path} has {len(data)} bytes, and at most {MOST} can be run")
    try:
        tree = ast.parse(data, str(path))
    except SyntaxError as error:
        where = f"{path}:{error.lineno}" if error.lineno else str(path)
        raise ConfigurationError(f"{where}: it is not valid Python: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, an encoding, parentheses
        raise ConfigurationError(
            f"{path} cannot be read as Python: {str(error) or type(error).__name__}"
        ) from None
    errors: list[str] = []
    found = {one.name: one for one in _functions(tree, str(path), errors)}
    if errors:
        raise ConfigurationError("\n".join(errors))
    declared = {name: one for name, one in found.items() if one.is_declared}
    public = {name: one for name, one in found.items() if not name.startswith("_")}
    if not declared and not public:
        raise ConfigurationError(f"{path} has no function at its top level: define one")
    return Program(path, data, declared or public)


def _functions(tree: ast.Module, path: str, errors: list[str]) -> Iterator[Function]:
    names, constants = _Names(tree), _constants(tree)
    for node in tree.body:
        if isinstance(node, _DEFINITIONS):
            needs: tuple[str, ...] = ()
            is_declared = False
            for decorator in node.decorator_list:
                call = decorator if isinstance(decorator, ast.Call) else None
                if names.is_ours(call.func if call else decorator):
                    is_declared = True
                    needs = _needs(call, constants, f"{path}:{decorator.lineno}", errors)
            yield Function(node.name, node.lineno, needs, is_declared, tuple(_parameters(node.args)))


class _Names:
    """What the file calls our decorator."""

    def __init__(self, tree: ast.Module) -> None:
        self._modules, self._names, taken = set(), set(), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._modules |= {a.asname or a.name for a in node.names if a.name == "cloudimport"}
                taken |= {a.asname or a.name for a in node.names if a.name != "cloudimport"}
            elif isinstance(node, ast.ImportFrom):
                ours = [a for a in node.names if node.module == "cloudimport" and a.name == _DECORATOR]
                self._names |= {a.asname or a.name for a in ours}
                taken |= {a.asname or a.name for a in node.names if a not in ours}
            elif isinstance(node, (*_DEFINITIONS, ast.ClassDef)):
                taken.add(node.name)
        if _DECORATOR not in taken:
            self._names.add(_DECORATOR)

    def is_ours(self, node: ast.expr) -> bool:
        """Whether an expression is our decorator."""
        if isinstance(node, ast.Name):
            return node.id in self._names
        if not isinstance(node, ast.Attribute) or node.attr != _DECORATOR:
            return False
        return isinstance(node.value, ast.Name) and node.value.id in self._modules


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Return what names of the module are assigned once, so that several functions can share a dict."""
    found: dict[str, ast.expr] = {}
    often = set()
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign):
                often |= {target.id} & set(found)
                found[target.id] = node.value
    return {name: value for name, value in found.items() if name not in often}


def _needs(
    call: ast.Call | None, constants: Mapping[str, ast.expr], where: str, errors: list[str]
) -> tuple[str, ...]:
    """Return the lines of a decorator's argument, or add what is wrong with it to ``errors``."""
    given = call.args if call and not call.keywords else []
    if len(given) != 1:
        errors.append(f"{where}: requirements() takes one dict of names and versions")
        return ()
    node = given[0]
    if isinstance(node, ast.Name):
        node = constants.get(node.id, node)
    try:
        needs = ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        errors.append(
            f"{where}: what requirements() takes must stand there as a literal: it is read, not run"
        )
        return ()
    try:
        lines = needing.lines(needs)
    except ConfigurationError as error:
        errors += [f"{where}: {line}" for line in str(error).split("\n")]
        return ()
    errors += [f"{where}: {problem}" for problem in map(_problem, lines) if problem]
    return lines


def _problem(line: str) -> str:
    """Return what is wrong with the ranges of a line, or ""."""
    try:
        Dependency(line)
    except (InvalidRequirement, ValueError) as error:
        return f"{line!r} has no version or range (PEP 440): {str(error).splitlines()[0]}"
    return ""


def _parameters(arguments: ast.arguments) -> Iterator[Parameter]:
    kinds = inspect.Parameter
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    for number, one in enumerate(positional):
        is_only = number < len(arguments.posonlyargs)
        kind = kinds.POSITIONAL_ONLY if is_only else kinds.POSITIONAL_OR_KEYWORD
        yield _parameter(one, kind, number >= first_default)
    if arguments.vararg:
        yield _parameter(arguments.vararg, kinds.VAR_POSITIONAL, True)
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(one, kinds.KEYWORD_ONLY, default is not None)
    if arguments.kwarg:
        yield _parameter(arguments.kwarg, kinds.VAR_KEYWORD, True)


def _parameter(one: ast.arg, kind: inspect._ParameterKind, has_default: bool) -> Parameter:
    note = one.annotation
    is_name = isinstance(note, ast.Name) and note.id == "str"
    is_text = is_name or (isinstance(note, ast.Constant) and note.value == "str")
    return Parameter(one.arg, kind, has_default, is_text)
