"""What the commands of ``shelf`` say, and how they are called. Only this prints."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

#: Lines of programs that run at once do not run into one another.
_relaying = threading.Lock()

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


@dataclass
class Call:
    """A command that was called: its arguments, the shelf's URL, the environment, and where output goes."""

    options: argparse.Namespace
    url: str
    environ: dict[str, str]
    _out: Console = field(default_factory=lambda: Console(soft_wrap=True, highlight=False))
    _err: Console = field(default_factory=lambda: Console(stderr=True, soft_wrap=True, highlight=False))

    def say(self, text: str) -> None:
        """Print a line."""
        _say(self._out, text)

    def show(self, table: Table) -> None:
        """Print a table."""
        self._out.print(table)

    def print_json(self, value: object) -> None:
        """Print a value as JSON, for programs: in ASCII, so that nothing in it steers a terminal."""
        self._out.print(json.dumps(value, indent=1), markup=False, emoji=False)

    def answer(self, value: object) -> None:
        """Print a value as JSON on one line, in ASCII likewise."""
        print(json.dumps(value), flush=True)

    def relay(self, text: str) -> None:
        """Print a line of a program that runs to standard error, as it comes."""
        line = text.expandtabs()
        with _relaying:
            print(line if line.isprintable() else printable(line), file=sys.stderr, flush=True)

    def complain(self, text: str) -> None:
        """Print a line to standard error."""
        _say(self._err, text)

    def bars(self) -> Bars:
        """Return progress on standard error."""
        return Bars(self._err)

    @staticmethod
    def end_on_sigterm() -> None:
        """Have SIGTERM end like Ctrl-C: what runs in sandboxes is stopped, temporary folders are removed."""
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _say(console: Console, text: str) -> None:
    console.print(printable(text), markup=False)


def printable(text: str) -> str:
    """Return ``text`` without what steers a terminal: a package's names and metadata are hostile."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def counted(number: int, noun: str, several: str = "") -> str:
    """Return such as ``1 file``, ``2 files``; ``several`` where an s does not make it."""
    return f"{number} {noun if number == 1 else several or f'{noun}s'}"


def date(seconds: float | None) -> str:
    """Return a time (seconds since 1970) as ISO 8601 has it, in UTC."""
    if seconds is None:
        return "at an unknown time"
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Bars:
    """Progress on standard error: a bar a stage on a terminal, a line a stage elsewhere."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[last]}"),
        )
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._console = console
        self._task = self.progress.add_task("", total=0, last="", visible=False)

    def stage(self, name: str, total: int, what: str = "package") -> None:
        """A stage begins: ``total`` steps."""
        self._task = self.progress.add_task(name, total=total, last="")
        if not self._console.is_terminal:
            self._console.print(f"{name}: {counted(total, what)}", markup=False)

    def step(self, name: str) -> None:
        """One step of the stage is done."""
        self.progress.update(self._task, advance=1, last=name)

    def note(self, text: str) -> None:
        """Print one line for a person."""
        _say(self.progress.console, f"note: {text}")
