"""The behaviours: which run together in one interpreter, and what the report calls them."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

from tests.conformance.subjects import Subject

_SCENARIOS = runpy.run_path(str(Path(__file__).parent / "inside" / "behaviours" / "scenarios.py"))
#: Distributions that have a program of their own.
PROGRAMS = frozenset({*_SCENARIOS["HELLO"], *_SCENARIOS["PROGRAMS"]})


def _always(_: Subject) -> bool:
    return True


def _imports(subject: Subject) -> bool:
    return bool(subject.roots)


def _imports_or_runs(subject: Subject) -> bool:
    return bool(subject.roots or subject.programs or subject.scripts)


#: A probe (module.function in inside/behaviours), and what it is called in the report.
TITLES = {
    "modules.walk": "import of every module",
    "modules.ending": "modules that end the interpreter",
    "modules.repeated": "places that modules name",
    "modules.specs": "find_spec",
    "modules.reload": "reload",
    "modules.lazy": "LazyLoader",
    "modules.sys_modules": "sys.modules changed",
    "modules.threads": "threads importing at once",
    "modules.shutdown": "imports at shutdown",
    "modules.namespaces": "namespace packages",
    "objects.pickling": "pickle, cloudpickle",
    "objects.hints": "type hints",
    "source.sources": "sources",
    "source.doctests": "doctest",
    "source.frames": "traceback, warning, pdb",
    "source.by_path": "modules loaded by path",
    "metadata.distribution": "metadata",
    "metadata.entry_points": "entry points",
    "metadata.environment": "all distributions",
    "resources.tree": "resources: folders",
    "resources.reading": "resources: files",
    "resources.get_data": "pkgutil.get_data",
    "files.listing": "listing",
    "files.status": "stat",
    "files.opening": "opening",
    "files.beside_file": "files beside `__file__`",
    "files.copying": "copytree",
    "files.by_c_code": "opened by C code",
    "files.databases": "sqlite3",
    "files.archives": "zipfile, tarfile",
    "files.libraries": "ctypes",
    "programs.executables": "executables",
    "programs.scripts": "console scripts",
    "programs.mains": "python -m",
    "programs.by_runpy": "runpy",
    "processes.workers": "worker processes",
    "testing.discovery": "unittest discovery",
    "testing.by_pytest": "pytest",
    "scenarios.program": "a program that uses it",
}

#: What runs in one interpreter, in this order, and which subjects it applies to. Apart are those that are
#: about files that nobody has touched, and those that are about a package that has not been imported.
PACKS: dict[str, tuple[Callable[[Subject], bool], tuple[str, ...]]] = {
    "modules": (
        _imports,
        ("modules.specs", "modules.walk", "modules.repeated", "source.sources", "source.doctests")
        + ("objects.pickling", "objects.hints", "metadata.entry_points"),
    ),
    "again": (
        _imports,
        ("modules.lazy", "source.by_path", "source.frames", "modules.reload", "modules.sys_modules"),
    ),
    "threads": (_imports, ("modules.namespaces", "modules.threads")),
    "listing": (_always, ("metadata.distribution", "files.status", "files.listing")),
    "opening": (_always, ("files.opening", "files.databases", "files.archives", "files.libraries")),
    "resources": (
        _imports,
        ("resources.tree", "resources.reading", "resources.get_data", "files.beside_file", "files.copying"),
    ),
    "programs": (
        _imports_or_runs,
        ("processes.workers", "programs.executables", "programs.scripts", "programs.mains")
        + ("modules.shutdown", "testing.discovery", "testing.by_pytest", "programs.by_runpy"),
    ),
    "c code": (_imports, ("files.by_c_code",)),
    "scenarios": (lambda s: s.name in PROGRAMS, ("scenarios.program",)),
}
