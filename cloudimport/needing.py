"""``cloudimport.requirements``: a function says what it needs, where it stands (docs/running.md).

Nothing is imported or fetched when it is said. What was found for it is recorded by ``shelf run`` beside the
function's file; a call in an ordinary process installs that, and in the sandbox of ``shelf run`` it is
installed already. Import budget: loaded by who uses it; ``functools``; the rest with the first call.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from functools import wraps

from cloudimport.errors import AbsentError, ConfigurationError, DeniedError, NotPublishedError
from cloudimport.ids import Pin, normalise_name, normalise_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeVar

    _F = TypeVar("_F", bound=Callable[..., Any])

#: What ``requirements`` leaves on a function: the lines of what it needs.
MARK = "__cloudimport_requirements__"
#: What the record of a file is called: its name, and this.
RECORD = ".lock"
#: ``inspect.CO_COROUTINE``
_COROUTINE = 0x80
_OPERATORS = "<>=!~"
_installing = allocate_lock()


def lines(needs: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is needed as sorted lines: ``name``, ``name==version`` or ``name`` with ranges.

    Raises ConfigurationError that names each that is wrong, one a line.
    """
    if not isinstance(needs, dict):
        raise ConfigurationError("requirements() takes a dict such as {'requests': '2.32.3', 'logzero': ''}")
    found: dict[str, str] = {}
    errors = []
    for name, version in needs.items():
        try:
            key, line = _line(name, version)
            if key in found:
                errors.append(f"{key} is named twice")
            found[key] = line
        except ConfigurationError as error:
            errors.append(str(error))
    if errors:
        raise ConfigurationError("\n".join(errors))
    return tuple(sorted(found.values()))


def _line(name: object, version: object) -> tuple[str, str]:
    if not isinstance(name, str) or not isinstance(version, str):
        raise ConfigurationError(f"{name!r}: {version!r} is not a package's name and version, both text")
    bare, bracket, rest = name.partition("[")
    if bracket and not rest.endswith("]"):
        raise ConfigurationError(f"{name!r} is not a package name (PEP 508)")
    extras = sorted({normalise_name(extra.strip()) for extra in rest[:-1].split(",")}) if bracket else []
    key = normalise_name(bare.strip())
    full = f"{key}[{','.join(extras)}]" if extras else key
    text = "".join(version.split())
    if not text:
        return key, full
    if text[0] not in _OPERATORS:
        text = f"=={text}"
    if text.startswith("==") and not text.startswith("===") and not set(text[2:]) & set(f"{_OPERATORS}*,"):
        try:
            return key, f"{full}=={normalise_version(text[2:])}"
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None
    return key, full + text


def requirements(needs: Mapping[str, str]) -> Callable[[_F], _F]:
    """Say what a function needs: names of packages, each with its version, a range, or "" for any.

    The function stays what it is; when it is called, its environment is installed first if none is.
    Raises ConfigurationError for names and versions that are none.
    """
    wanted = lines(needs)

    def decorate(function: _F) -> _F:
        code = getattr(function, "__code__", None)
        if code is None:
            raise ConfigurationError(f"requirements() is for functions: {function!r} is none")
        wrapped: _F = _wrapped(function, wanted)
        return wrapped

    return decorate


def _wrapped(function: Any, wanted: tuple[str, ...]) -> Any:
    if function.__code__.co_flags & _COROUTINE:

        @wraps(function)
        async def later(*args: Any, **kwargs: Any) -> Any:
            _ensure(function, wanted)
            return await function(*args, **kwargs)

        setattr(later, MARK, wanted)
        return later

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _ensure(function, wanted)
        return function(*args, **kwargs)

    setattr(call, MARK, wanted)
    return call


def _ensure(function: Any, wanted: tuple[str, ...]) -> None:
    """Have the environment of a function installed. Raises a CloudImportError."""
    from cloudimport import bootstrap

    environment = bootstrap.current()
    if environment is None and wanted:
        with _installing:  # two threads that call it first
            environment = bootstrap.current()
            if environment is None:
                _install(function, wanted)
                return
    lacking = _lacking(wanted, environment.pins) if environment else ""
    if lacking:
        raise ConfigurationError(
            f"{function.__name__}() needs {lacking}, which the environment that is installed has not: "
            "a process has one environment; 'shelf run' gives each function its own"
        )


def _lacking(wanted: tuple[str, ...], pins: Iterable[Pin]) -> str:
    """Return the first line that the pins do not meet, or "". Ranges were decided when they were resolved."""
    versions = {pin.name: pin.version for pin in pins}
    for line in wanted:
        name, version = _bare(line), line.partition("==")[2]
        is_exact = bool(version) and not set(version) & set(f"{_OPERATORS}*,")
        if name not in versions or (is_exact and versions[name] != version):
            return line
    return ""


def _bare(line: str) -> str:
    """Return the name of a line."""
    for at, character in enumerate(line):
        if character in f"[{_OPERATORS}":
            return line[:at]
    return line


def _install(function: Any, wanted: tuple[str, ...]) -> None:
    from cloudimport import bootstrap
    from cloudimport.format.runlock import RunLock

    path = os.path.abspath(function.__code__.co_filename)
    record = f"{path}{RECORD}"
    command = f"run 'shelf run --record {path}'"
    try:
        with open(record, encoding="utf-8") as file:
            recorded = RunLock.decode(file.read(), record)
    except (OSError, UnicodeDecodeError):
        recorded = RunLock("", ())
    locked = recorded.lock(wanted)
    if locked is None:
        raise NotPublishedError(f"what {function.__name__}() needs is not recorded in {record}: {command}")
    try:
        bootstrap.install(lock=record, locked=locked)
    except (AbsentError, DeniedError) as error:
        if not error.key.startswith("envs/"):
            raise
        raise NotPublishedError(
            f"the environment of {function.__name__}() was made elsewhere and is not on the shelf: {command} "
            "here, or once, with --publish, by somebody who may write to the shelf"
        ) from error
