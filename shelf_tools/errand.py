"""What the tasks of a publish have in common, and what each process that runs them opens once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Pin, Target
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.indexes import without_user
from shelf_tools.interpreters import Interpreter, find_interpreter, runs_here
from shelf_tools.limits import StageLimits
from shelf_tools.pins import Link, Listed
from shelf_tools.sandbox import Sandbox, open_sandbox
from shelf_tools.store import Store, open_store


@dataclass(frozen=True)
class Errand:
    """What the tasks of one target have in common.

    ``run`` is the publish's own name. ``folder`` is where trees lie, None on machines that do not see the
    curator's files: they have folders of their own. ``environ`` is the curator's environment, None for
    machines that have their own. ``options`` and ``links`` are the list's; ``allow_sdist`` names what may be
    built from source, ``sourceless`` are published without it. ``pythons``: interpreters that the curator
    named; ``magic`` that of the one that compiles, "" if there is none; ``traces``: whether it can import
    what is for the target.
    """

    run: str
    target: Target
    shelf: str
    sandbox: str
    level: int
    limits: StageLimits = field(default_factory=StageLimits)
    options: tuple[str, ...] = ()
    links: Mapping[Pin, tuple[Link, ...]] = field(default_factory=dict)
    allow_sdist: frozenset[str] = frozenset()
    sourceless: frozenset[Pin] = frozenset()
    pythons: tuple[Path, ...] = ()
    environ: Mapping[str, str] | None = None
    folder: Path | None = None
    magic: str = ""
    traces: bool = False


def without_users(listed: Listed) -> Listed:
    """Return a list as machines get it that have credentials of their own: its URLs have none."""
    return listed._replace(
        options=tuple(map(without_user, listed.options)),
        links={
            pin: tuple(link._replace(url=without_user(link.url)) for link in links)
            for pin, links in listed.links.items()
        },
    )


def environ_of(errand: Errand) -> Mapping[str, str]:
    """Return the environment that an errand's tasks have here."""
    return os.environ if errand.environ is None else errand.environ


def shelf_of(errand: Errand) -> tuple[Store, Source]:
    """Return an errand's shelf, opened once in each process. Raises ConfigurationError."""
    return _opened(errand.shelf, tuple(sorted(environ_of(errand).items())))


@lru_cache(maxsize=4)
def _opened(url: str, environ: tuple[tuple[str, str], ...]) -> tuple[Store, Source]:
    known = dict(environ)
    return open_store(url, known), open_source(url, SourceConfig(environ=known))


@lru_cache(maxsize=4)
def sandbox_called(name: str) -> Sandbox:
    """Return a sandbox, tried out once in each process. Raises ConfigurationError."""
    return open_sandbox(name)


@lru_cache(maxsize=16)
def interpreter_for(target: Target, given: tuple[Path, ...]) -> Interpreter | None:
    """Return ``find_interpreter``'s answer, asked for once in each process."""
    return find_interpreter(target, given)


def interpreter_of(errand: Errand) -> Interpreter | None:
    """Return the interpreter that compiles for an errand. Raises ConfigurationError if this machine has not
    the one that the others have.
    """
    if not errand.magic:
        return None
    if errand.traces and not runs_here(errand.target):  # it came after the others had been asked
        raise ConfigurationError(
            f"{os.uname().nodename} is not {errand.target.machine}, and other workers are: "
            "take it out of the cluster"
        )
    found = interpreter_for(errand.target, errand.pythons)
    if found is None or found.magic != errand.magic:
        python = f"{errand.target.python[0]}.{errand.target.python[1]}"
        raise ConfigurationError(
            f"{os.uname().nodename} has {found or 'no CPython ' + python}, and other workers have one whose "
            f"bytecode is of another kind ({errand.magic}): 'uv python install {python}' there"
        )
    return found
