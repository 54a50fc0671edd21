"""The closure of ``DT_NEEDED`` in a merged tree."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudimport.format.closure import closures
from cloudimport.format.content import Native


def _closures(*natives: tuple[str, str, list[str], list[str]]) -> dict[str, list[str]]:
    """Closures by path, of (path, soname, needed, run path); each file is a build of its own."""
    rows = [
        (n, 7, path, Native(tuple(needed), soname, tuple(runpath)))
        for n, (path, soname, needed, runpath) in enumerate(natives)
    ]
    paths = [path for path, *_ in natives]
    return {paths[key[0]]: [paths[build] for build, _ in found] for key, found in closures(rows).items()}


def test_a_wheel_of_auditwheel_finds_its_libs_folder() -> None:
    """``$ORIGIN/../x.libs`` is followed, dependencies come first, what the system has is left out."""
    assert _closures(
        ("x/core/_x.so", "", ["libb.so", "libc.so.6"], ["$ORIGIN/../../x.libs"]),
        ("x.libs/libb.so", "libb.so", ["liba.so"], ["$ORIGIN"]),
        ("x.libs/liba.so", "liba.so", ["libm.so.6"], []),
    ) == {
        "x/core/_x.so": ["x.libs/liba.so", "x.libs/libb.so"],
        "x.libs/libb.so": ["x.libs/liba.so"],
    }


def test_a_library_of_another_build_is_found() -> None:
    """Builds share one root: a run path may lead from one into another, with ``${ORIGIN}`` too."""
    assert _closures(
        (
            "torch/lib/libtorch.so",
            "",
            ["libcublas.so.12"],
            ["${ORIGIN}/../../nvidia/cublas/lib:x", "${ORIGIN}/../../nvidia/cublas/lib"],
        ),
        ("nvidia/cublas/lib/libcublas.so.12", "libcublas.so.12", [], []),
    ) == {"torch/lib/libtorch.so": ["nvidia/cublas/lib/libcublas.so.12"]}


def test_the_run_path_of_the_loader_is_inherited() -> None:
    """A library without a run path is helped by that of the object that loads it."""
    found = _closures(
        ("p/m.so", "", ["liba.so"], ["$ORIGIN/libs"]),
        ("p/libs/liba.so", "liba.so", ["libb.so"], []),
        ("p/libs/libb.so", "libb.so", [], []),
    )
    assert found == {"p/m.so": ["p/libs/libb.so", "p/libs/liba.so"]}


def test_a_loaded_library_answers_to_its_soname() -> None:
    """What has been loaded under a SONAME serves whoever needs that name, wherever it looks."""
    found = _closures(
        ("p/m.so", "", ["one-1.so", "two.so"], ["$ORIGIN/a", "$ORIGIN/b"]),
        ("p/a/one-1.so", "libone.so.1", [], []),
        ("p/b/two.so", "two.so", ["libone.so.1"], ["$ORIGIN"]),
        ("p/b/libone.so.1", "libone.so.1", [], []),
    )
    assert found["p/m.so"] == ["p/a/one-1.so", "p/b/two.so"]
    assert found["p/b/two.so"] == ["p/b/libone.so.1"]


def test_cycles_end_and_no_file_needs_itself() -> None:
    """Two libraries that need each other are in each other's closure, once."""
    assert _closures(
        ("a.so", "a.so", ["b.so", "a.so"], ["$ORIGIN"]),
        ("b.so", "b.so", ["a.so"], ["$ORIGIN"]),
    ) == {"a.so": ["b.so"], "b.so": ["a.so"]}


def test_nothing_outside_the_tree_is_found() -> None:
    """A run path that leaves the root, or is absolute, finds nothing, even where a name repeats."""
    assert (
        _closures(
            ("p/m.so", "", ["liba.so"], ["$ORIGIN/../../lib", "/lib", "lib", "$ORIGINAL"]),
            ("lib/liba.so", "liba.so", [], []),
        )
        == {}
    )


def test_a_needed_path_is_followed_as_such() -> None:
    """A DT_NEEDED with a slash is a path, not a name to look for."""
    found = _closures(("p/m.so", "", ["$ORIGIN/q/l.so", "./l.so"], ["$ORIGIN/q"]), ("p/q/l.so", "", [], []))
    assert found == {"p/m.so": ["p/q/l.so"]}


_NAMES = st.integers(0, 5).map("l{}.so".format)


@given(st.dictionaries(_NAMES, st.lists(_NAMES, max_size=4)))
def test_every_library_comes_after_what_it_needs(graph: dict[str, list[str]]) -> None:
    """In any graph a closure is complete, has no repeats, not itself, and in a tree is in order."""
    found = _closures(*((name, name, needed, ["$ORIGIN"]) for name, needed in graph.items()))
    for name in graph:
        reach, stack = set(), [name]
        while stack:
            for other in graph.get(stack.pop(), ()):
                if other in graph and other not in reach:
                    reach.add(other)
                    stack.append(other)
        closure = found.get(name, [])
        assert len(closure) == len(set(closure))
        assert set(closure) == reach - {name}
        for at, one in enumerate(closure):
            later = [other for other in graph[one] if other in closure[at + 1 :]]
            assert all(one in found.get(other, []) for other in later), "only a cycle may be out of order"
