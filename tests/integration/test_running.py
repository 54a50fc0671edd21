"""``shelf run``: functions of files, with real packages of a real shelf, each in a real sandbox."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudimport.format.runlock import RunLock
from tests.integration.test_rights import Shop, rights
from tests.support.children import Ran, Runner
from tests.support.s3servers import S3Server
from tests.support.sandboxes import bubblewrap
from tests.support.shelfcommand import publisher_environment, run_shelf
from tests.support.shelves import MadeShelf
from tests.support.wheels import wheel_files

EXAMPLES = Path(__file__).parent / "running"
#: What is on the shelf: what requests needs, and others.
_PINS = (
    *("requests==2.32.3", "urllib3==2.2.3", "idna==3.10", "certifi==2024.8.30", "charset_normalizer==3.4.0"),
    *("logzero==1.7.0", "six==1.17.0"),
)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> MadeShelf:
    """A shelf with real packages."""
    bubblewrap()
    made = MadeShelf(tmp_path_factory.mktemp("shelf"))
    downloads = tmp_path_factory.mktemp("downloads")
    for pin in _PINS:
        name, _, version = pin.partition("==")
        files = wheel_files(pin, downloads)
        made.add(name, version, files, with_metadata=False)
    made.add("six", "1.16.0", {"six.py": "PY3 = True\n"})
    return made


class Bench:
    """A folder with an example, and the command on it."""

    def __init__(self, folder: Path, shelf: MadeShelf) -> None:
        self.folder, self.shelf, self.env = folder, shelf, {"CLOUDIMPORT_CACHE": str(folder / "cache")}

    def copy(self, name: str) -> Path:
        """Copy an example to the folder."""
        return Path(shutil.copy(EXAMPLES / name, self.folder))

    def write(self, name: str, text: str) -> Path:
        """Write a file."""
        path = self.folder / name
        path.write_text(text)
        return path

    def run(self, name: str | Path, *words: str, env: dict[str, str] | None = None) -> Ran:
        """Run an example, or a file."""
        path = name if isinstance(name, Path) else self.copy(name)
        options = ["--shelf", self.shelf.url]
        return run_shelf("run", *options, path, *words, env={**self.env, **(env or {})})

    def value(self, name: str | Path, *words: str) -> Any:
        """Run one, and return what it prints as JSON: all of standard output."""
        return json.loads(self.run(name, *words).ok())


@pytest.fixture
def bench(tmp_path: Path, shelf: MadeShelf) -> Bench:
    """A folder of its own."""
    return Bench(tmp_path, shelf)


def test_the_first_example_of_pysprinter(bench: Bench) -> None:
    """``-a 5`` is text for ``str``; logs go to standard error; versions are chosen and recorded."""
    ran = bench.run("first.py", "-a", "5")
    assert ran.ok() == '"5"'
    assert "requests 2.32.3" in ran.stderr
    record = RunLock.decode((bench.folder / "first.py.lock").read_text(), "record")
    (found,) = record.found(("logzero", "requests==2.32.3")).values()
    assert {str(pin) for pin in found.contents} == {
        *("requests==2.32.3", "urllib3==2.2.3", "idna==3.10", "certifi==2024.8.30"),
        *("charset-normalizer==3.4", "logzero==1.7"),
    }


def test_the_second_example_of_pysprinter(bench: Bench) -> None:
    """As its README has the output; as printed the file is no Python, and neither are the arguments."""
    assert (
        bench.run("second.py", "-a", "5", "--arg1", "this", "--arg2", "that").ok() == '["5", "this", "that"]'
    )
    ran = bench.run("second.py", "-a", "5", "-arg1", "this", "--arg2", "that")
    assert ran.returncode == 1
    assert "-arg1 is no argument: a named one is --arg1" in ran.stderr
    printed = bench.write("printed.py", "def my_function(a: str, arg1: str=None, arg2: str):\n    return a\n")
    ran = bench.run(printed, "-a", "5")
    assert ran.returncode == 1
    assert "printed.py:1: it is not valid Python" in ran.stderr


def test_what_is_not_declared_is_not_there(bench: Bench) -> None:
    """requests is on the shelf, and where the command runs; the function has not said that it needs it."""
    ran = bench.run("undeclared.py", "-a", "5")
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert "No module named 'requests'" in ran.stderr


def test_prints_and_the_result_are_apart(bench: Bench) -> None:
    """Standard output has the result alone."""
    ran = bench.run("prints.py", "-a", "5")
    assert ran.ok() == '"5"'
    assert "the value is 5\n" in ran.stderr
    assert "to standard error\n" in ran.stderr


def test_parameters_called_a_and_args(bench: Bench) -> None:
    """And as the command's own options; behind ``--`` all are the function's."""
    assert bench.value("named.py", "--a", "1", "--args", "[2]", "--", "--function", "x") == [1, [2], "x"]
    assert bench.value("named.py", "--", "--a", "1", "--args", "2", "--function", "x") == [1, 2, "x"]
    words = [
        "-a",
        "1",
        "-a",
        "text",
        "-a",
        '{"k": null}',
        "-a",
        "-5",
        "--",
        "--update",
        "true",
        "--b-c",
        "NaN",
    ]
    assert bench.value("names.py", *words) == {
        "a": 1,
        "args": "text",
        "shelf": {"k": None},
        "rest": [-5],
        "update": True,
        "more": {"b_c": "NaN"},
    }


def test_every_wrong_name_and_version_is_told_before_anything_runs(bench: Bench) -> None:
    """With the line, and what is near on the shelf."""
    path = bench.write(
        "wrong.py",
        "from cloudimport import requirements\n"
        "raise SystemExit('it was run')\n"
        "@requirements({'reqests': '2.32.3', 'six': '1.71.0'})\n"
        "def one(): pass\n"
        "@requirements({'logzero': '9', 'requests': '<2'})\n"
        "def two(one): pass\n",
    )
    ran = bench.run(path)
    assert ran.returncode == 1
    lines = [line.partition(f"{path}:")[2] for line in ran.stderr.splitlines()]
    assert [line.partition(" on ")[0] for line in lines] == [
        *("4: reqests is not", "4: six==1.71 is not", "6: logzero==9 is not", "6: requests<2 is not"),
    ]
    assert "near it there is requests" in lines[0]
    assert "there is 1.17, 1.16" in lines[1]
    path = bench.write(
        "syntax.py",
        "from cloudimport import requirements\n@requirements({'a b': '', 'c': 'x y z'})\ndef f(): pass\n",
    )
    ran = bench.run(path)
    assert "syntax.py:2: 'a b' is not a package name" in ran.stderr
    assert "syntax.py:2: c: 'xyz' is not a version" in ran.stderr


@pytest.mark.long
def test_arguments_that_are_missing_or_unknown_are_told_before_anything_runs(bench: Bench) -> None:
    """All of them, against the signature."""
    ran = bench.run("named.py", "--arg", "1", "--a", "1")
    assert ran.returncode == 1
    assert "call() lacks args: give --args VALUE or -a VALUE" in ran.stderr
    assert "--arg: call() has no parameter arg: there is args" in ran.stderr


def test_what_was_recorded_is_taken_until_it_is_updated(bench: Bench) -> None:
    """A newer version on the shelf is not taken before --update."""
    text = (
        "import cloudimport\n@cloudimport.requirements({'six': '<1.17'})\ndef f():\n"
        "    from importlib.metadata import version\n    return version('six')\n"
    )
    path = bench.write("pinned.py", text)
    assert bench.value(path) == "1.16.0"
    record = bench.folder / "pinned.py.lock"
    before = record.read_text()
    record.write_text(before.replace('"six<1.17"', '"six"'))
    path.write_text(text.replace("<1.17", ""))
    assert bench.value(path) == "1.16.0"
    assert bench.value(path, "--update") == "1.17.0"
    assert "six==1.17" in record.read_text()


def test_functions_that_take_one_anothers_results_run_at_once(bench: Bench) -> None:
    """Two of them wait for each other, each in a sandbox and an environment of its own."""
    with meeting() as port:
        ran = bench.run("graph.py", "--path", "x", "--port", str(port), "--title", "t")
    assert json.loads(ran.ok()) == {"t": 2 + 3 + 2 + 3}
    assert bench.value("graph.py", "--load", "[1]") == {"sum": 2}  # given, so not run
    assert bench.value("graph.py", "--function", "load", "-a", "p", "--count", "1") == ["p"]


@contextlib.contextmanager
def meeting() -> Iterator[int]:
    """Let two meet: each is answered when both have said who they are."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            both = [server.accept()[0] for _ in range(2)]
            assert {one.recv(8) for one in both} == {b"left", b"right"}
            for one in both:
                one.sendall(b"go")
                one.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(60)
        assert not thread.is_alive()


def test_a_function_that_fails_stops_those_that_need_it(bench: Bench) -> None:
    """Its traceback begins in the file; others go to their end."""
    ran = bench.run("fails.py")
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert 'fails.py", line 6, in broken\n    return inner["nothing"]' in ran.stderr
    assert "runner.py" not in ran.stderr
    assert "KeyError: 'nothing'" in ran.stderr
    assert "sound | sound was run" in ran.stderr
    assert "both was not run: broken has no result" in ran.stderr


@pytest.mark.long
def test_a_cycle_is_named(bench: Bench) -> None:
    """Before anything runs."""
    path = bench.write("ring.py", "def a(c): pass\ndef b(a): pass\ndef c(b): pass\n")
    ran = bench.run(path)
    assert ran.returncode == 1
    assert "a needs c needs b needs a" in ran.stderr


def test_a_file_named_as_a_module_of_the_standard_library(bench: Bench) -> None:
    """Shadows nothing."""
    assert bench.value("random.py") == [True, "/tmp", "random", "_run_random"]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nan", "nan() returned what is not JSON: the float nan (in ['a'][1])"),
        pytest.param("raw", "raw() returned what is not JSON: bytes", marks=pytest.mark.long),
        pytest.param(
            "unordered", "unordered() returned what is not JSON: set (in [0])", marks=pytest.mark.long
        ),
        pytest.param("keys", "keys() returned what is not JSON: a key of type tuple", marks=pytest.mark.long),
        pytest.param("leaves", "leaves() ended its process with status 3", marks=pytest.mark.long),
        ("dies", "dies() died of signal 11"),
        ("hungry", "MemoryError"),
        pytest.param("fills", "No space left on device", marks=pytest.mark.long),
        pytest.param("large", "large() returned 7340034 bytes of JSON", marks=pytest.mark.long),
        ("endless", "endless() was stopped after 2.0 s"),
    ],
)
def test_what_hostile_functions_end_in(bench: Bench, function: str, said: str) -> None:
    """One line that names the function."""
    ran = bench.run("hostile.py", "--function", function, "--timeout", "2", "--tmp", "16M")
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert said in ran.stderr.splitlines()[-1]


@pytest.mark.long
def test_a_flood_of_prints_is_bounded(bench: Bench) -> None:
    """100 MB are read and 16 shown; the result comes all the same."""
    ran = bench.run("hostile.py", "--function", "floods")
    assert ran.ok() == '"flooded"'
    assert 16 << 20 <= len(ran.stderr) < 17 << 20
    assert "what follows is not shown" in ran.stderr


def test_what_a_function_leaves_ends_with_it(bench: Bench) -> None:
    """Processes that ignore signals, in sessions of their own, and threads."""
    assert bench.value("hostile.py", "--function", "forks") == "forked"
    assert bench.value("hostile.py", "--function", "steers") == "\ud800\x1b"
    assert "\x1b" not in bench.run("hostile.py", "--function", "steers").stderr


def test_nothing_of_the_curators_is_in_the_sandbox(bench: Bench) -> None:
    """No variable, unless --env names it; nothing can be written but /tmp."""
    hidden = {"AWS_SECRET_ACCESS_KEY": "s", "SOME_TOKEN": "t"}
    path = bench.copy("hostile.py")
    assert json.loads(bench.run(path, "--function", "looks", env=hidden).ok()) == []
    shown = bench.run(path, "--function", "looks", "--env", "SOME_TOKEN", env=hidden)
    assert json.loads(shown.ok()) == ["SOME_TOKEN"]


def test_a_function_sees_the_packages_that_it_needs_alone(tmp_path: Path) -> None:
    """Of the cache, which has those that functions of this file, and others, have needed."""
    shelf = MadeShelf(tmp_path / "made")
    for name in ("one", "two"):
        shelf.add(name, "1", {f"{name}.py": "", f"{name}.bin": os.urandom(1000)})
    bench = Bench(tmp_path, shelf)
    look = "[sorted(map(str, Path('/mnt/shelf/' + place).glob('*'))) for place in ('packages', 'envs')]"
    text = "from pathlib import Path\nfrom cloudimport import requirements\n" + "".join(
        f"@requirements({needs})\ndef {name}({before}):\n    return [{before or None}, {look}]\n"
        for name, needs, before in (("a", "{'one': ''}", ""), ("b", "{'two': ''}", "a"), ("c", "{}", "b"))
    )
    ((_, a), b), c = bench.value(bench.write("looks.py", text))
    assert (a[0], b[0]) == (["/mnt/shelf/packages/one"], ["/mnt/shelf/packages/two"])
    assert (len(a[1]), len(b[1])) == (1, 1)
    assert c == [[], []]
    assert len(list((tmp_path / "cache" / "run" / "objects" / "packages").iterdir())) == 2


@pytest.mark.parametrize("ending", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGKILL])
def test_an_end_from_outside_leaves_nothing(bench: Bench, ending: signal.Signals) -> None:
    """Neither Ctrl-C nor SIGKILL leaves processes; what lies in the folder for temporary files, the next
    run removes.
    """
    temporary = bench.folder / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-c", "import sys; from shelf_tools.cli import main; sys.exit(main())", "run"]
    env = publisher_environment({**bench.env, "TMPDIR": str(temporary)})
    with subprocess.Popen(
        [*command, str(bench.copy("hostile.py")), "--function", "waits"], env=env, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"waiting")
        inside = _descendants(process.pid)
        assert inside
        process.send_signal(ending)
        process.wait(30)
    deadline = time.monotonic() + 30
    while any(map(_is_alive, inside)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_is_alive, inside))
    run_shelf("run", bench.copy("random.py"), env={**bench.env, "TMPDIR": str(temporary)}).ok()
    assert list(temporary.iterdir()) == []


def _descendants(pid: int) -> list[int]:
    """Return the processes below one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_function_is_called_as_ever(bench: Bench, tmp_path: Path) -> None:
    """In an ordinary process its environment, as it was recorded, is installed before its body runs."""
    path = bench.copy("prints.py")
    runner = Runner(tmp_path / "home")
    env = {**bench.env, "CLOUDIMPORT_YANKED": "ignore"}
    code = "import sys; sys.path.insert(0, sys.argv[1]); import prints; print(prints.my_function('5'))"
    ran = runner.run(code, str(bench.folder), env=env)
    assert "is not recorded in" in ran.stderr
    assert f"run 'shelf run --record {path}'" in ran.stderr
    run_shelf("run", "--shelf", bench.shelf.url, "--record", path, env=bench.env).ok()
    assert runner.run(code, str(bench.folder), env=env).ok().splitlines()[-1] == "5"


def test_environments_that_are_published_are_found_elsewhere(tmp_path: Path) -> None:
    """With --publish a machine with another cache needs nothing but the record and the shelf."""
    shelf = MadeShelf(tmp_path / "made")
    shelf.add("six", "1.17.0", {"six.py": "def ensure_str(text): return text\n"})
    bench = Bench(tmp_path, shelf)
    path = bench.copy("prints.py")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import prints; print(prints.my_function('5'))"
    env = {"CLOUDIMPORT_CACHE": str(tmp_path / "other"), "CLOUDIMPORT_YANKED": "ignore"}
    run_shelf("run", "--shelf", shelf.url, "--record", path, env=bench.env).ok()
    ran = Runner(tmp_path / "home").run(code, str(tmp_path), env=env)
    assert "was made elsewhere and is not on the shelf" in ran.stderr
    run_shelf("run", "--shelf", shelf.url, "--record", "--publish", path, env=bench.env).ok()
    assert Runner(tmp_path / "home").run(code, str(tmp_path), env=env).ok().splitlines()[-1] == "5"


@pytest.mark.long
def test_versions_that_contradict_are_told(tmp_path: Path) -> None:
    """Who needs what, and what there is."""
    shelf = MadeShelf(tmp_path / "made")
    shelf.add("one", "1", {"one.py": ""}, requires=["base<2"])
    shelf.add("two", "1", {"two.py": ""}, requires=["base>=2"])
    shelf.add("base", "1", {"base.py": ""})
    shelf.add("base", "2", {"base.py": ""})
    bench = Bench(tmp_path, shelf)
    text = "import cloudimport\n@cloudimport.requirements({'one': '', 'two': ''})\ndef f(): pass\n"
    ran = bench.run(bench.write("f.py", text))
    assert ran.returncode == 1
    assert "one==1 needs base<2" in ran.stderr
    assert "two==1 needs base>=2" in ran.stderr
    assert "of base there is 2, 1" in ran.stderr


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    """What was used longest ago goes when there is more than CLOUDIMPORT_CACHE_SIZE."""
    shelf = MadeShelf(tmp_path / "made")
    for name in ("one", "two", "three"):
        shelf.add(name, "1", {f"{name}.py": "", f"{name}.bin": os.urandom(100_000)})
    bench = Bench(tmp_path, shelf)
    bench.env["CLOUDIMPORT_CACHE_SIZE"] = "250k"
    for name in ("one", "two", "three", "three"):
        text = (
            f"import cloudimport\n@cloudimport.requirements({{'{name}': ''}})\ndef f():\n    import {name}\n"
        )
        assert bench.value(bench.write(f"{name}_run.py", text)) is None
    objects = tmp_path / "cache" / "run" / "objects" / "packages"
    there = {name for name in ("one", "two", "three") if list((objects / name).rglob("pack-*"))}
    assert there in ({"three", "two"}, {"three"})


def test_what_is_damaged_in_the_cache_is_fetched_again(bench: Bench) -> None:
    """Packs, and indexes, which are made anew."""
    path = bench.copy("prints.py")
    bench.value(path, "-a", "5")
    objects = bench.folder / "cache" / "run" / "objects"
    for damaged in [one for one in objects.rglob("*") if one.is_file()]:
        data = damaged.read_bytes()
        damaged.write_bytes(bytes(len(data)))
    assert bench.value(path, "-a", "5") == "5"


def test_a_full_disk_is_told(bench: Bench) -> None:
    """With the folder, and the setting; here a file that may not become so large."""
    call = "import sys; from shelf_tools.cli import main; sys.exit(main())"
    command = ["prlimit", "--fsize=50000", sys.executable, "-c", call, "run", "--shelf", bench.shelf.url]
    done = subprocess.run(
        [*command, str(bench.copy("first.py")), "-a", "5"],
        env=publisher_environment(bench.env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("note: "))
    folder = bench.folder / "cache" / "run" / "objects"
    assert line == f"shelf: error: {folder}: File too large: set CLOUDIMPORT_CACHE to a folder with more room"
    assert not list(folder.rglob(".*"))
    assert bench.value("first.py", "-a", "5") == "5"


def test_yanked_versions_are_not_chosen(tmp_path: Path) -> None:
    """One that is pinned is a warning, or an error if the settings refuse it."""
    shelf = MadeShelf(tmp_path / "made")
    for version in ("1", "2"):
        shelf.add("one", version, {"one.py": f"V = {version}\n"})
    run_shelf("yank", "one==2", "--reason", "a hole", "--shelf", shelf.url).ok()
    bench = Bench(tmp_path, shelf)
    head = "import cloudimport\n@cloudimport.requirements({{'one': '{}'}})\n"
    text = head + "def f():\n    import one\n    return one.V\n"
    assert bench.value(bench.write("free.py", text.format(""))) == 1
    pinned = bench.write("pinned.py", text.format("2"))
    ran = bench.run(pinned)
    assert ran.ok() == "2"
    assert "note: one==2 is yanked: a hole" in ran.stderr
    ran = bench.run(pinned, env={"CLOUDIMPORT_YANKED": "refuse"})
    assert ran.returncode == 1
    assert "one==2 is yanked: a hole" in ran.stderr


def test_with_a_root_every_package_has_to_be_signed(tmp_path: Path) -> None:
    """Also what was chosen and cached before there was a root."""
    shelf = MadeShelf(tmp_path / "made")
    shelf.add("six", "1.17.0", {"six.py": "def ensure_str(text): return text\n"})
    bench, key = Bench(tmp_path, shelf), tmp_path / "key.pem"
    public = run_shelf("key", "new", key).ok().split()[-1]
    path = bench.copy("prints.py")
    bench.run(path, "-a", "5").ok()
    ran = bench.run(path, "-a", "5", env={"CLOUDIMPORT_ROOT": public})
    assert ran.returncode == 1
    assert "six==1.17" in ran.stderr
    assert "signed" in ran.stderr
    run_shelf("key", "sign", key, "six==1.17", "--shelf", shelf.url).ok()
    assert bench.run(path, "-a", "5", env={"CLOUDIMPORT_ROOT": public}).ok() == '"5"'


@pytest.mark.parametrize("server", ["moto", pytest.param("radosgw", marks=pytest.mark.long)])
def test_who_may_only_read_can_run(
    server: str, new_bucket: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With the rights of README.md's row; the credentials do not go into the sandbox."""
    store: S3Server = request.getfixturevalue(server)
    url = f"s3://{new_bucket(store)}/some/prefix"
    (tmp_path / "made").mkdir()
    shelf = MadeShelf(tmp_path / "made", url, store.environ)
    shelf.add("six", "1.17.0", {"six.py": "def ensure_str(text): return text\n"})
    shelf.source.close()
    shop = Shop(store, url.split("/")[2], shelf)
    user = shop.user(rights()["run"])
    bench = Bench(tmp_path, shelf)
    ran = bench.run("prints.py", "-a", "5", env=user.server.environ)
    assert ran.ok() == '"5"'
    looked = bench.run("hostile.py", "--function", "looks", env=user.server.environ)
    assert json.loads(looked.ok()) == []
