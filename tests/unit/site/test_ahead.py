"""What is asked for before it is needed: what a module imports comes in one round trip."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.shelves import MadeShelf
from tests.support.stacks import Stack, opened

#: Code that does not compress, so that each module has a block of its own.
_BIG = "x = {!r}\n"


def _module(seed: int) -> str:
    return _BIG.format(random.Random(seed).randbytes(700_000))


def _shelf(work: Path, imports: bool) -> MadeShelf:
    """Publish a package of large modules, of which the last imports the first and one of another package."""
    shelf = MadeShelf(work)
    names = [f"top/m{n}.py" for n in range(8)]
    files = {"top/__init__.py": "", **{name: _module(at) for at, name in enumerate(names)}}
    graph = {
        "top/m7.py": {"top": ["top/m1.py"], "base": ["base/deep.py"]},
        "top/m1.py": {"top": ["top/m4.py"]},
    }
    shelf.add("top", "1", files, opened=[("top/__init__.py", True)], imports=graph if imports else None)
    base = {"base/__init__.py": "", "base/deep.py": _module(100), "base/more.py": _module(101)}
    shelf.add("base", "1", base, opened=[("base/__init__.py", True)])
    return shelf


def _trips(stack: Stack, *stems: str) -> list[float]:
    """Return the round trips that each module's code took."""
    found = []
    for stem in stems:
        before = stack.stats()["round_trips"]
        module = stack.index.find_module(stem)
        assert module is not None
        stack.tree.activate(module[0].build)
        stack.code(stem)
        found.append(stack.stats()["round_trips"] - before)
    return found


def test_what_a_module_imports_comes_with_it(tmp_path: Path) -> None:
    """The first module that no lead has brings along what it imports, in other packages too."""
    shelf = _shelf(tmp_path / "known", imports=True)
    with opened(shelf.url, shelf.environment(), tmp_path / "cache") as stack:
        assert _trips(stack, "top/m7") == [2]  # the lead, and all of this
        assert _trips(stack, "top/m1", "top/m4") == [0, 0]
        assert _trips(stack, "base/deep") == [0]
        assert _trips(stack, "base/more") == [1]
    shelf = _shelf(tmp_path / "unknown", imports=False)
    with opened(shelf.url, shelf.environment(), tmp_path / "other") as stack:
        _trips(stack, "top/m7")
        assert min(_trips(stack, "top/m1", "base/deep")) >= 1


def test_what_is_read_ahead_grows_all_the_same(tmp_path: Path) -> None:
    """A program that imports everything, in order, waits for ever longer reads, not for each module."""
    shelf = MadeShelf(tmp_path / "shelf")
    names = [f"top/m{n:02}.py" for n in range(40)]
    files = {"top/__init__.py": "", **{name: _module(at) for at, name in enumerate(names)}}
    graph = {name: {"top": [name]} for name in names}
    shelf.add("top", "1", files, opened=[("top/__init__.py", True)], imports=graph)
    with opened(shelf.url, shelf.environment(), tmp_path / "cache") as stack:
        trips = _trips(stack, *(name[: -len(".py")] for name in names))
    assert sum(map(bool, trips)) <= 8


def test_a_warm_process_looks_nothing_up(tmp_path: Path) -> None:
    """Where everything is cached, nobody looks at what modules import."""
    shelf = _shelf(tmp_path / "shelf", imports=True)
    ref, stems = shelf.environment(), ("top/m7", "top/m1", "top/m4", "base/deep")
    with opened(shelf.url, ref, tmp_path / "cache") as stack:
        _trips(stack, *stems)
    with opened(shelf.url, ref, tmp_path / "cache") as stack:
        assert _trips(stack, *stems) == [0, 0, 0, 0]
        assert not stack.tree._ahead.is_cold
        assert stack.index.section(1)._import_lines is None
