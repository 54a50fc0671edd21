"""``shelf ls``, ``show`` and ``diff`` as a user runs them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from cloudimport.format import keys
from cloudimport.format.records import requirements_digest
from cloudimport.ids import Target, running_targets
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import Files, MadeShelf

TARGET = str(running_targets()[0])
OTHER = "cp310-manylinux_2_17_aarch64"
ELF = b"\x7fELF" + b"\0" * 100


@pytest.fixture
def shelf(tmp_path: Path) -> MadeShelf:
    """A shelf with two packages that depend on a third, for two targets, and an environment of two."""
    (tmp_path / "work").mkdir()
    made = MadeShelf(tmp_path / "work")
    made.add("base", "1.5", {"base.py": "X = 1\n", "base.dat": b"12345"})
    made.add("needs", "2", {"needs.py": "import base\n"}, requires=["Base[fast]>=1 ; os_name == 'posix'"])
    made.add("alone", "3", {"alone.py": "X = 1\n"}, requires=["base", "not a requirement !"])
    made.environment("base==1.5", "needs==2")
    made.target = Target.parse(OTHER)
    made.add("base", "1.5", {"base.py": "X = 1\n"}, bytecode=False)
    return made


def says(shelf: MadeShelf, *arguments: str | Path) -> list[str]:
    """Return the lines that a command prints."""
    return run_shelf(*arguments, "--shelf", shelf.url).ok().splitlines()


def read(shelf: MadeShelf, *arguments: str | Path) -> Any:
    """Return what a command prints as JSON."""
    return json.loads(run_shelf(*arguments, "--json", "--shelf", shelf.url).ok())


def test_ls_filters(shelf: MadeShelf) -> None:
    """By name, target and age; what is listed is what all of them let through."""
    every = [f"alone==3 {TARGET}", f"base==1.5 {OTHER}", f"base==1.5 {TARGET}", f"needs==2 {TARGET}"]
    assert says(shelf, "ls") == every
    assert says(shelf, "ls", "b*", "NEE?s") == every[1:]
    assert says(shelf, "ls", "a.lone") == []
    assert says(shelf, "ls", "base", "--target", OTHER) == [every[1]]
    assert says(shelf, "ls", "nothing") == []
    old = Path(shelf.url) / keys.build_pointer("alone", "3", TARGET)
    then = time.time() - 10 * 86400
    os.utime(old, (then, then))
    assert says(shelf, "ls", "--older-than", "9") == every[:1]
    assert says(shelf, "ls", "--older-than", "11") == []
    assert says(shelf, "ls", "--newer-than", "9") == every[1:]
    assert says(shelf, "ls", "--newer-than", "11") == every
    (line,) = says(shelf, "ls", "alone", "--long")
    assert line.startswith(every[0])
    assert line.endswith(time.strftime(" %Y-%m-%dT%H:%M:%SZ", time.gmtime(then)))


def test_ls_for_programs(shelf: MadeShelf) -> None:
    """JSON has each build's objects, their bytes and when it was published."""
    (found,) = read(shelf, "ls", "needs")
    sizes = [entry.size for entry in shelf.store.entries("packages/needs/")]
    own = {"name": "needs", "version": "2", "target": TARGET, "objects": len(sizes), "stored": sum(sizes)}
    assert {name: found[name] for name in own} == own
    assert abs(found["published"] - time.time()) < 300


def test_ls_of_environments(shelf: MadeShelf) -> None:
    """By digest, with the pins and the index of each target; filtered by what is in them."""
    digest = requirements_digest(["base==1.5", "needs==2"])
    lines = says(shelf, "ls", "--envs")
    assert lines[0] == f"{digest[:12]} 2 pins: base==1.5, needs==2"
    assert lines[1].startswith(f"  {TARGET} index ")
    assert says(shelf, "ls", "--envs", "alone") == []
    assert says(shelf, "ls", "--envs", "--target", OTHER) == []
    (found,) = read(shelf, "ls", "--envs", "need*", "--target", TARGET)
    assert found["digest"] == digest
    assert found["requirements"] == ["base==1.5", "needs==2"]
    assert found["targets"][TARGET]["index"].startswith(lines[1].split()[-1])
    assert found["targets"][TARGET]["replaced"] == []


def test_show_who_needs_it(shelf: MadeShelf) -> None:
    """Environments that have it, and what in them depends on it; files, sizes, dependencies, provenance."""
    (found,) = read(shelf, "show", "Base==1.5.0", "--target", TARGET)
    digest = requirements_digest(["base==1.5", "needs==2"])
    assert [one["digest"] for one in found["needed_by"]["environments"]] == [digest]
    packages = found["needed_by"]["packages"]
    assert packages == [{"pin": "needs==2", "requires": ["Base[fast]>=1 ; os_name == 'posix'"]}]
    sizes = {file["path"]: (file["kind"], file["size"]) for file in found["files"]}
    assert sizes["base.dat"] == ("data", 5)
    assert sizes["base.py"] == ("source", 6)
    assert found["provenance"]["kind"] == "provenance"
    assert found["size"] == sum(size for _, size in sizes.values())
    assert {one["target"] for one in read(shelf, "show", "base==1.5")} == {TARGET, OTHER}
    (other,) = read(shelf, "show", "needs==2")
    assert other["requires"] == ["Base[fast]>=1 ; os_name == 'posix'"]
    assert other["needed_by"]["packages"] == []
    (alone,) = read(shelf, "show", "alone==3")
    assert alone["needed_by"] == {"environments": [], "packages": []}


def test_show_for_people(shelf: MadeShelf) -> None:
    """The card says who needs it; its files are listed on request."""
    text = "\n".join(says(shelf, "show", "base==1.5", "--target", TARGET))
    digest = requirements_digest(["base==1.5", "needs==2"])
    assert "needs==2 (Base[fast]>=1" in text
    assert f"{digest[:12]}, 2 pins, index " in text
    assert "base.dat" not in text
    assert "base.dat" in "\n".join(says(shelf, "show", "base==1.5", "--files"))
    ran = run_shelf("show", "needs==2", "--target", OTHER, "--shelf", shelf.url)
    assert ran.returncode == 1
    assert f"needs==2 is on file://{shelf.url} for {TARGET} only" in ran.stderr


def test_extras_and_markers_say_who_needs_it(shelf: MadeShelf) -> None:
    """What asks for a package only elsewhere, or with an extra that nobody wants, does not need it."""
    shelf.target = Target.parse(TARGET)
    lines = ["base; os_name == 'nt'", "base; extra == 'more'", "base>=1; extra == 'most'"]
    shelf.add("some", "1", {"some.py": "X = 1\n"}, requires=lines[:1])
    shelf.add("extra", "1", {"extra.py": "X = 1\n"}, requires=lines[1:])
    shelf.environment("base==1.5", "some==1", "extra==1")
    (found,) = read(shelf, "show", "base==1.5", "--target", TARGET)
    assert [row["pin"] for row in found["needed_by"]["packages"]] == ["needs==2"]
    shelf.add("asks", "1", {"asks.py": "X = 1\n"}, requires=["extra[most]"])
    shelf.environment("base==1.5", "some==1", "extra==1", "asks==1")
    (found,) = read(shelf, "show", "base==1.5", "--target", TARGET)
    assert found["needed_by"]["packages"] == [
        {"pin": "extra==1", "requires": lines[2:]},
        {"pin": "needs==2", "requires": ["Base[fast]>=1 ; os_name == 'posix'"]},
    ]


def test_what_is_yanked_is_marked(shelf: MadeShelf) -> None:
    """``ls`` has a mark with the reason at builds and environments of a yanked pin, ``show`` since when."""
    assert "yanked" not in "\n".join(says(shelf, "show", "base==1.5"))
    began = int(time.time())
    says(shelf, "yank", "base==1.5", "--reason", "a hole")
    assert says(shelf, "ls", "b*", "n*") == [
        f"base==1.5 {OTHER} yanked: a hole",
        f"base==1.5 {TARGET} yanked: a hole",
        f"needs==2 {TARGET}",
    ]
    (line,) = says(shelf, "ls", "base", "--target", OTHER, "--long")
    assert line.endswith("Z yanked: a hole")
    base, needs = read(shelf, "ls", "base", "needs", "--target", TARGET)
    assert base["yanked"]["reason"] == "a hole"
    assert began <= base["yanked"]["since"] <= time.time()
    assert needs["yanked"] is None
    assert says(shelf, "ls", "--envs")[-1] == "  base==1.5 is yanked: a hole"
    (environment,) = read(shelf, "ls", "--envs")
    assert environment["yanked"] == {"base==1.5": base["yanked"]}
    text = says(shelf, "show", "base==1.5", "--target", TARGET)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(base["yanked"]["since"]))
    assert any("yanked" in line and f"{when}: a hole" in line for line in text)
    assert read(shelf, "show", "base==1.5", "--target", OTHER)[0]["yanked"] == base["yanked"]
    assert read(shelf, "show", "needs==2")[0]["yanked"] is None
    says(shelf, "unyank", "base==1.5")
    assert "yanked" not in "\n".join([*says(shelf, "ls"), *says(shelf, "ls", "--envs")])


def test_marks_that_say_less(shelf: MadeShelf) -> None:
    """A mark without a date, or with one that is none, is shown; another reason keeps the date."""
    path = Path(shelf.url) / keys.STATUS
    for since in (
        {},
        {"since": {"base": {"1.5": "x"}}},
        {"since": {"base": {"1.5": 1 << 40}}},
        {"since": [1]},
    ):
        status = {"format": 1, "kind": "status", "yanked": {"base": {"1.5": "a hole"}}, **since}
        path.write_text(json.dumps(status))
        assert "at an unknown time: a hole" in "\n".join(says(shelf, "show", "base==1.5"))
    path.write_text(json.dumps({**status, "since": {"base": {"1.5": 5, "1.6": 6}}, "other": 1}))
    says(shelf, "yank", "base==1.5", "--reason", "a larger hole")
    says(shelf, "yank", "needs==2", "--reason", "of base")
    found = json.loads(path.read_bytes())
    assert found["yanked"] == {"base": {"1.5": "a larger hole"}, "needs": {"2": "of base"}}
    assert found["since"]["base"] == {"1.5": 5}
    assert found["since"]["needs"]["2"] > 1_700_000_000
    assert found["other"] == 1


def test_a_damaged_status(shelf: MadeShelf) -> None:
    """It is said, and what else there is is shown; ``verify`` has it as a problem. Of none nobody speaks."""
    path = Path(shelf.url) / keys.STATUS
    path.write_bytes(b'{"format":1,"kind":"status","yanked":[]}')
    for arguments in (("ls",), ("ls", "--envs"), ("show", "base==1.5")):
        ran = run_shelf(*arguments, "--shelf", shelf.url)
        assert "base==1.5" in ran.ok()
        (line,) = ran.stderr.splitlines()
        assert line.startswith("shelf: which pins are yanked is not known: ")
        assert "status.json is not a well-formed status" in line
    ran = run_shelf("verify", "--shelf", shelf.url)
    assert (ran.returncode, ran.stdout) == (1, "4 builds checked, 1 problem\n")
    assert "status.json is not a well-formed status" in ran.stderr
    assert "remove it and yank them again" in ran.stderr
    path.write_bytes(b'{"format":1,"kind":"status","yanked":{}}' + b" " * (4 << 20))
    assert "status.json is larger than a pointer can be" in run_shelf("verify", "--shelf", shelf.url).stderr
    path.unlink()
    assert says(shelf, "verify")[-1] == "4 builds checked, 0 problems"
    assert len(says(shelf, "ls")) == 4


def test_show_beside_damage(shelf: MadeShelf) -> None:
    """An index that cannot be read is said, and the rest is shown."""
    for key in shelf.store.list("envs/"):
        if not key.endswith(".json"):
            (Path(shelf.url) / key).write_bytes(b"x")
    ran = run_shelf("show", "needs==2", "--shelf", shelf.url)
    assert ran.returncode == 0
    assert "needs==2" in ran.stdout
    assert "is damaged" in ran.stderr


OLD: Files = {
    "pkg/__init__.py": "import json\nimport ssl\n",
    "pkg/same.py": "X = 1\n",
    "pkg/gone.py": "X = 2\n",
    "pkg/quiet.py": "X = 3\n",
    "pkg/old.so": ELF,
    "pkg.pth": "some/path\n",
    "kept.pth": "import kept\n",
}
NEW: Files = {
    "pkg/__init__.py": "import json\nimport ssl\nVERSION = 2\n",
    "pkg/same.py": "X = 1\n",
    "pkg/quiet.py": "def f():\n    import socket, ssl\n",
    "pkg/old.so": ELF + b"\0connect\0",
    "pkg/new.so": ELF + b"2",
    "pkg/more.txt": "12345",
    "pkg.pth": "some/path\nimport os; os.system('true')\n",
    "kept.pth": "import kept\n",
    "other.pth": "just/a/path\n",
}
POINTS = "[console_scripts]\nrun = pkg:main\n"
MORE = "[console_scripts]\nrun = pkg:main\nRun = pkg:other\n[pytest11]\nplug = pkg.plug\n"


@pytest.fixture
def versions(tmp_path: Path) -> MadeShelf:
    """A shelf with two versions of a package."""
    (tmp_path / "work").mkdir()
    made = MadeShelf(tmp_path / "work")
    old = ["a>=1", "B_c (<3,>=1) ; extra == 'x'", "not one !"]
    new = ["a>=2", 'b-c>=1,<3; extra == "x"', "not one !"]
    made.add("pkg", "1", OLD, requires=old, entry_points=POINTS)
    made.add("pkg", "2", NEW, requires=new, entry_points=MORE)
    return made


def test_diff_of_two_versions(versions: MadeShelf) -> None:
    """Files and dependencies, and of what is new: native code, entry points, executable .pth, networks."""
    (found,) = read(versions, "diff", "pkg==1", "pkg==2")
    assert (found["before"], found["after"], found["target"]) == ("pkg==1", "pkg==2", TARGET)
    assert [one["path"] for one in found["added"]] == ["other.pth", "pkg/more.txt", "pkg/new.so"]
    assert found["removed"] == [{"path": "pkg/gone.py", "size": 6}]
    changed = {one["path"]: (one["before"], one["after"]) for one in found["changed"]}
    assert changed["pkg/__init__.py"] == (23, 35)
    assert "pkg/same.py" not in changed
    assert "pkg.dist-info/METADATA" in changed
    assert found["requires_added"] == ["a>=2"]
    assert found["requires_removed"] == ["a>=1"]
    assert found["native"] == ["pkg/new.so"]
    assert found["entry_points"] == ["console_scripts: Run = pkg:other", "pytest11: plug = pkg.plug"]
    assert found["pth"] == ["pkg.pth"]
    assert found["network"] == [
        {"path": "pkg/old.so", "names": ["connect"], "first": ["connect"]},
        {"path": "pkg/quiet.py", "names": ["socket", "ssl"], "first": ["socket"]},
    ]
    assert found["unread"] == []
    assert found["size"][1] > found["size"][0]
    (back,) = read(versions, "diff", "pkg==2", "pkg==1")
    assert not any(back[name] for name in ("native", "entry_points", "pth", "network"))
    (none,) = read(versions, "diff", "pkg==2", "pkg==2")
    assert not any(none[name] for name in ("added", "removed", "changed", "pth", "network", "entry_points"))


def test_diff_for_people(versions: MadeShelf) -> None:
    """What deserves a second look comes first."""
    text = says(versions, "diff", "pkg==1", "pkg==2")
    assert text[0] == f"pkg==1 -> pkg==2  {TARGET}"
    titles = [line.strip() for line in text if line.startswith("  ") and line.endswith(":")]
    assert [title.split()[0] + title.split()[1][:6] for title in titles[:4]] == [
        "newnative",
        "newentry",
        "new.pth",
        "newsigns",
    ]
    assert "    pkg/quiet.py: socket, ssl (new to the package: socket)" in text
    assert "    - pkg/gone.py (6 bytes)" in text
    assert "    ~ pkg/__init__.py (23 -> 35 bytes)" in text


@pytest.mark.parametrize("bytecode", [True, False])
def test_diff_sees_networks_with_and_without_bytecode(tmp_path: Path, bytecode: bool) -> None:
    """Where there is no interpreter of the target, the source's words are the sign; scripts have no other."""
    made = MadeShelf(tmp_path)
    made.add("pkg", "1", {"pkg.py": "X = 1\n"}, bytecode=bytecode)
    files = {"pkg.py": "import socket\n", "bin/run": "#!python\nimport requests\n"}
    made.add("pkg", "2", files, bytecode=bytecode)
    (found,) = read(made, "diff", "pkg==1", "pkg==2")
    assert {one["path"]: one["names"] for one in found["network"]} == {
        "pkg.py": ["socket"],
        "bin/run": ["requests"],
    }


def test_diff_of_hostile_entry_points(tmp_path: Path) -> None:
    """Entry points that nobody can parse are said to be so."""
    made = MadeShelf(tmp_path)
    made.add("pkg", "1", {"pkg.py": "X = 1\n"})
    made.add("pkg", "2", {"pkg.py": "X = 1\n"}, entry_points="no section = here\n\x1b[31m")
    (found,) = read(made, "diff", "pkg==1", "pkg==2")
    assert found["entry_points"] == []
    (line,) = found["unread"]
    assert line.startswith("pkg.dist-info/entry_points.txt: File contains no section headers")


def test_diff_of_two_locks(versions: MadeShelf, tmp_path: Path) -> None:
    """Packages added, removed and changed, each with what is new in it."""
    versions.add("plain", "1", {"plain.py": "X = 1\n"})
    versions.add("adds", "1", {"adds.py": "import http.client\n", "adds.pth": "import adds\n"})
    versions.add("goes", "1", {"goes.py": "X = 1\n"})
    versions.environment("pkg==1", "plain==1", "goes==1")
    before = versions.lock.rename(tmp_path / "before.lock")
    versions.environment("pkg==2", "plain==1", "adds==1")
    (found,) = read(versions, "diff", before, versions.lock)
    assert (found["target"], found["same"]) == (TARGET, 1)
    pairs = [(one["before"], one["after"]) for one in found["packages"]]
    assert pairs == [(None, "adds==1"), ("goes==1", None), ("pkg==1", "pkg==2")]
    adds = found["packages"][0]
    assert adds["pth"] == ["adds.pth"]
    assert [one["names"] for one in adds["network"]] == [["http.client"]]
    assert found["packages"][2]["native"] == ["pkg/new.so"]
    lines = says(versions, "diff", before, versions.lock)
    assert lines[0] == f"{TARGET}: 1 package added, 1 removed, 1 changed, 1 the same"
    assert f"(none) -> adds==1  {TARGET}" in lines


def test_what_cannot_be_compared(versions: MadeShelf) -> None:
    """A pin and a file, targets that they do not share, versions that are not there."""
    for arguments, words in (
        (("pkg==1", "some.lock"), "cannot be compared"),
        (("pkg==1", "pkg==3"), "not on file://"),
        (("pkg==1", "pkg==2", "--target", OTHER), "no target in common"),
        (("none.lock", "other.lock"), "none.lock cannot be read"),
    ):
        ran = run_shelf("diff", *arguments, "--shelf", versions.url)
        assert ran.returncode == 1
        assert words in ran.stderr.replace("\n", " "), ran.stderr
