"""Importing a package once in a sandbox, to learn which files it reads in which order.

Then, in another process, the modules below it, to learn which of them imports which.

What the sandbox says and makes the watcher see is hostile: only names that are in the trees are
used, and only for order and for eager marks.
"""

from __future__ import annotations

import io
import json
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cloudimport.ids import Pin
from shelf_tools.elf import MAGIC, read_elf
from shelf_tools.interpreters import Interpreter
from shelf_tools.limits import TRACE, TRACE_LIMITS, WALL_TIME, Limits, explain, flag, passed, suspect
from shelf_tools.process import ProcessError, ProcessTimeout
from shelf_tools.sandbox import Sandbox
from shelf_tools.scripts import SCRIPTS, scripts
from shelf_tools.view import PYC, SITE, View, open_view
from shelf_tools.watcher import Watcher

#: Modules of one package that may end the process before the rest is given up.
_MOST_DEATHS = 10
#: The part of the wall limit that one module may take.
_SHARE = 0.5
#: Seconds for the modules below the top-level ones, how many are imported, and how many may end the process.
_INNER_SECONDS, _INNER_MODULES, _INNER_DEATHS = 30, 3000, 3
_MOST_TEXT = 300
#: Lines of a report that are looked at: one for each file that is opened; the widest trees have 60,000.
_MOST_LINES = 500_000
#: Imports of one package's modules that are kept: each of its 3,000 modules imports some 20. Whoever reads
#: the environment's index pays for them.
_MOST_PAIRS = 100_000


class Opened(NamedTuple):
    """A file's first use: the distribution's name, the path in it, ``code`` (bytecode) or ``file``."""

    name: str
    path: str
    kind: str


@dataclass(frozen=True)
class Trace:
    """What importing a package read.

    ``opened``: files of the package and of its dependencies, in order of first use. ``c_opened``:
    the package's own files that something other than Python opened, without extension modules and
    the libraries that those are linked against. ``failed``: error text by module that could not be
    imported. ``notes``: lines for a person; without any, the trace is complete.

    ``reached``: files of the package that importing the modules below it read besides, in order of first
    use. ``imports``: for files of the package that are modules, the files that they import, by the
    distribution's name.
    """

    opened: tuple[Opened, ...]
    c_opened: tuple[str, ...]
    failed: dict[str, str]
    notes: tuple[str, ...]
    reached: tuple[Opened, ...] = ()
    imports: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


@dataclass
class _Said:
    """What the runs inside have reported so far."""

    python: set[str] = field(default_factory=set)
    native: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    imports: dict[str, dict[str, None]] = field(default_factory=dict)
    pairs: int = 0

    def pair(self, path: str, other: str) -> None:
        """Note that a file imports another, as far as that is believable."""
        others = self.imports.setdefault(path, {})
        if other not in others and self.pairs < _MOST_PAIRS:
            others[other] = None
            self.pairs += 1


def trace(
    pin: Pin,
    top_level: Sequence[str],
    inner: Sequence[str],
    tree: Path,
    code: Path | None,
    dependencies: Mapping[str, tuple[Path, Path | None]],
    interpreter: Interpreter | None,
    sandbox: Sandbox,
    limits: Limits = TRACE_LIMITS,
) -> Trace:
    """Import each module of ``top_level`` once, with ``dependencies`` (by normalised name) beside it.

    Then those of ``inner``, which lie below them. ``tree`` and ``code`` are as ``Installed`` has them.
    ``limits.wall_seconds`` is for all modules of ``top_level`` together. Never raises for what the package
    does: a module that fails, hangs or ends the process stands in ``failed``; of ``inner`` nobody hears.
    """
    if interpreter is None:
        return Trace((), (), {}, (f"{pin}: not traced: no interpreter of the target is at hand",))
    if not top_level:
        return Trace((), (), {}, ())
    packages = {**dependencies, pin.name: (tree, code)}
    said = _Said()
    with open_view(packages, interpreter, sandbox, beside=tree.parent) as view:
        try:
            with Watcher({"code": view.bytecode, "file": view.site}) as watcher:
                _import_all(list(dict.fromkeys(top_level)), view, interpreter, sandbox, limits, said)
        except OSError as error:
            return Trace((), (), {}, (f"{pin}: not traced: files cannot be watched: {error.strerror}",))
        opened = tuple(_opened(watcher, view))
        if not watcher.complete:
            said.notes.append("the queue of file events overflowed: the order is partly static")
        own = [
            o.path for o in opened if o.name == pin.name and o.kind == "file" and o.path not in said.python
        ]
        files = [o.path for o in opened if o.kind == "file"]
        c_opened = tuple(_without_linked(own, said.native, files, view.site))
        names = [name for name in inner if not any(f"{name}.".startswith(f"{top}.") for top in said.failed)]
        reached, imports = _reach(pin, names[:_INNER_MODULES], view, interpreter, sandbox, limits)
    said.notes += [f"{name} cannot be imported in the sandbox: {why}" for name, why in said.failed.items()]
    notes = tuple(f"{pin}: {note}" for note in said.notes)
    return Trace(opened, c_opened, said.failed, notes, reached, imports)


def _reach(
    pin: Pin, modules: list[str], view: View, interpreter: Interpreter, sandbox: Sandbox, limits: Limits
) -> tuple[tuple[Opened, ...], dict[str, dict[str, tuple[str, ...]]]]:
    """Import modules that nobody may ever import: what fails, fails, and what is slow is given up."""
    if not modules:
        return (), {}
    said = _Said()
    limits = replace(limits, wall_seconds=min(limits.wall_seconds, _INNER_SECONDS))
    try:
        with Watcher({"code": view.bytecode, "file": view.site}) as watcher:
            _import_all(modules, view, interpreter, sandbox, limits, said, is_inner=True)
    except OSError:
        return (), {}  # a hint; that files cannot be watched was said
    imports: dict[str, dict[str, list[str]]] = {}
    for path, others in said.imports.items():
        if view.owners[path] == pin.name:
            for other in others:
                imports.setdefault(path, {}).setdefault(view.owners[other], []).append(other)
    return (
        tuple(found for found in _opened(watcher, view) if found.name == pin.name),
        {path: {name: tuple(rows) for name, rows in by.items()} for path, by in imports.items()},
    )


def _opened(watcher: Watcher, view: View) -> Iterator[Opened]:
    """Yield the watched names that are files of the packages."""
    for kind, seen in watcher.opened:
        path = view.sources.get(seen) if kind == "code" else seen
        if path is not None and path in view.owners:
            yield Opened(view.owners[path], path, kind)


def _import_all(
    modules: list[str],
    view: View,
    interpreter: Interpreter,
    sandbox: Sandbox,
    limits: Limits,
    said: _Said,
    is_inner: bool = False,
) -> None:
    """Import the modules; start again after one that ends the process, with those that come after it."""
    deadline = time.monotonic() + limits.wall_seconds
    deaths = 0
    while modules:
        left = round(deadline - time.monotonic())
        if left < 1 or deaths > (_INNER_DEATHS if is_inner else _MOST_DEATHS):
            why = "the time for tracing was used up" if left < 1 else "too many modules ended the process"
            said.failed.update(dict.fromkeys(modules, f"not tried: {why}"))
            return
        what = "imports" if is_inner else "opens"
        output, reason, seen = _run(modules, what, view, interpreter, sandbox, limits, left)
        current, done = _read(output, modules, view, said, partial(_judge, limits, seen))
        modules = modules[done:]
        if current is not None:
            said.failed[current] = reason
            modules = modules[1:]
            deaths += 1
        elif modules:
            said.notes.append(f"the trace did not run: {reason}")
            said.failed.update(dict.fromkeys(modules, "not tried: the trace did not run"))
            return


def _judge(limits: Limits, seen: Mapping[str, int], text: str) -> str:
    """Return the text of a module's error, with the limit that it speaks of, if it does."""
    limit = suspect(text, limits, TRACE, seen)
    return f"{text.rstrip(': ')}: {limit}" if limit else text


def _run(
    modules: list[str],
    what: str,
    view: View,
    interpreter: Interpreter,
    sandbox: Sandbox,
    limits: Limits,
    left: int,
) -> tuple[bytes, str, Mapping[str, int]]:
    """Run once, ``left`` seconds at most.

    Returns the report, why the process ended (for the module in flight), and what it was seen to use.
    """
    seconds = str(max(1.0, left * _SHARE))
    script = SCRIPTS / "trace_import.py"
    argv: list[str | PurePosixPath] = ["-I", "-S", "-B", script, SITE, PYC, seconds, what]
    names = json.dumps(modules).encode()
    try:
        with scripts() as folder:
            mounts = {SCRIPTS: folder, **view.mounts}
            bounds = replace(limits, wall_seconds=left)
            done = sandbox.run(argv, limits=bounds, read_only=mounts, interpreter=interpreter, stdin=names)
    except ProcessTimeout as error:
        late = passed("wall_seconds", limits, TRACE)
        return (error.finished.stdout if error.finished else b""), late, {}
    except ProcessError as error:
        return b"", str(error), {}
    status = done.returncode - 128 if done.returncode > 128 else -done.returncode
    if status == signal.SIGALRM:  # the module's own share of the time
        late = f"killed after {float(seconds):.0f} s, half of what was left of {flag(TRACE, WALL_TIME)}"
        return done.stdout, late, done.seen
    ended = f"the process ended with status {done.returncode}: {done.reason()}"
    return done.stdout, explain(done, limits, TRACE) or ended, done.seen


def _read(
    output: bytes, modules: list[str], view: View, said: _Said, judge: Callable[[str], str]
) -> tuple[str | None, int]:
    """Take the report in; return the module that has begun and not ended, and how many have ended."""
    done = 0
    current: str | None = None
    for line in islice(io.BytesIO(output), _MOST_LINES):
        what, value, rest = _parse(line)
        if what in ("open", "native") and value in view.owners:
            (said.python if what == "open" else said.native).add(value)
        elif what == "imports" and value in view.owners and rest in view.owners:
            said.pair(value, rest)
        elif what == "begin" and done < len(modules) and value == modules[done]:
            current = value
        elif what == "end" and value == current:
            if rest:
                said.failed[value] = judge("".join(c if c.isprintable() else "?" for c in rest[:_MOST_TEXT]))
            current, done = None, done + 1
    return current, done


def _parse(line: bytes) -> tuple[str, str, str]:
    """Return a line's two or three strings; empty ones for a line that is not the reporter's."""
    try:
        parts = json.loads(line)
    except (ValueError, RecursionError):
        return "", "", ""
    if not isinstance(parts, list) or len(parts) not in (2, 3) or not all(isinstance(p, str) for p in parts):
        return "", "", ""
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _without_linked(own: list[str], loaded: set[str], opened: Iterable[str], site: Path) -> Iterator[str]:
    """Yield ``own`` without extension modules and what the dynamic linker opened on their behalf.

    A library that is loaded by name (ctypes, dlopen in C) is not linked against and stays in.
    """
    libraries = {path: _needed(site / path) for path in opened if _is_elf(site / path)}
    by_base: dict[str, list[str]] = {}
    for path in libraries:
        by_base.setdefault(path.rpartition("/")[2], []).append(path)
    linked: set[str] = set()
    waiting = [path for path in loaded if path in libraries]
    while waiting:
        path = waiting.pop()
        if path not in linked:
            linked.add(path)
            waiting += [other for base in libraries[path] for other in by_base.get(base, [])]
    yield from (path for path in own if path not in linked)


def _is_elf(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def _needed(path: Path) -> list[str]:
    """Return the base names of a library's ``DT_NEEDED``; none if it cannot be read."""
    native = read_elf(path).native
    return [name.rpartition("/")[2] for name in native.needed] if native else []
