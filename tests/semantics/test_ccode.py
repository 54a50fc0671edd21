"""C code that opens files by itself, with the native helper and without it."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.semantics.conftest import World

#: What each script here begins with. ``read`` says what the library of reader.c does in a way of its own.
C = """
import ctypes, bulk
library, holding = ctypes.CDLL({library!r}), ctypes.PyDLL({library!r})  # the second one keeps Python's lock
base = os.path.dirname(bulk.__file__)
def called(function, *arguments):
    out = ctypes.create_string_buffer(300)
    got = function(*arguments, out)
    return out.raw[:got].decode() if got >= 0 else os.strerror(-got)
def read(way, path, lib=library):
    return called(lib.c_read, way, os.fsencode(path))
"""


@pytest.fixture
def helped(reader: Path) -> str:
    """The beginning of a script, where the helper was built."""
    if importlib.util.find_spec("cloudimport._native") is None:
        pytest.skip("the native helper was not built: there was no compiler")
    return C.format(library=str(reader))


def test_every_function(world: World, helped: str) -> None:
    """With the native helper C code finds every file of the environment by itself: by `open`, `fopen`,
    `stat`, `access`, `realpath`, `rename`, `unlink` and their kin, also where that would make the file if it
    were not there.
    """
    out = world.both(
        helped
        + """
for way in range(30):
    print(way, read(way, f"{base}/data/f{way}"), read(way, f"{base}/none/f{way}"))
""",
        changes=True,
    )
    assert "2 data  No such file" in out


@pytest.mark.parametrize("way", range(5), ids=["opendir", "fdopendir", "scandir", "nftw", "glob"])
def test_folders(world: World, helped: str, way: int) -> None:
    """It lists all files of a folder, by `opendir`, `scandir`, `nftw` and `glob`."""
    out = world.both(helped + f"print(library.c_count({way}, os.fsencode(base + '/data')))\n")
    assert out == "40"


def test_new_files(world: World, helped: str) -> None:
    """It makes files of its own in folders of packages that nobody has imported yet."""
    out = world.both(
        helped
        + """
path = ROOT + "/nsp/data/new"
print(read(22, path), os.path.getsize(path), sorted(os.listdir(os.path.dirname(path))))
print(read(23, ROOT + "/nsp/data/folder"), os.path.isdir(ROOT + "/nsp/data/folder"))
print(read(22, ROOT + "/nowhere/new"))
""",
        changes=True,
    )
    assert out.startswith("0 0 ['a.txt', 'b.txt', 'new']")


def test_paths(world: World, helped: str) -> None:
    """It finds them by relative paths, through links, and with `..` in a path."""
    world.both(
        helped
        + """
os.chdir(base)
above = os.path.dirname(os.path.dirname(ROOT))
os.symlink(above, link := os.path.join(os.environ["HOME"], "link" + str(os.getpid())))
ENV = link + ROOT[len(above):]
print(read(0, "data/f1"), read(2, "./data/../data/f2"), read(5, ENV + "/bulk//data/f3"))
print(read(0, base + "/../bulk/data/f4"), read(4, ENV + "/bulk/data/f5"))
above, name = os.path.split(ROOT)
print(read(0, f"{above}//{name}/bulk/data/f6"), read(2, f"{above}/./{name}/bulk/data/f7"))
print(library.c_count(4, b"data"))
os.chdir("data")
print(library.c_count(4, b"."), library.c_count(4, b"../data"))
"""
    )


def test_changes_stay(world: World, helped: str) -> None:
    """What Python or C code of a process has changed, removed, moved or made stays as it is, for both of them
    and for its forks, also when C code lists the folder then.
    """
    world.both(
        helped
        + """
import shutil
def state(folder):
    print(library.c_count(0, os.fsencode(folder)), library.c_count(3, os.fsencode(folder)))
    print([read(0, f"{folder}/f{n}") for n in range(12)])
    print([os.path.exists(f"{folder}/f{n}") for n in range(12)])
    print(sorted(os.listdir(folder)))
data = base + "/data"
with open(data + "/f1", "w") as file: file.write("python")
os.remove(data + "/f2")
os.rename(data + "/f3", data + "/moved")
print(read(18, data + "/f4"), read(20, data + "/f5"), read(22, data + "/f6"), read(28, data + "/f7"))
state(data)
print(open(data + "/f6").read(), open(data + "/f7").read())
if not os.fork():
    state(data)
    sys.stdout.flush()
    os._exit(0)
os.wait()
print(read(20, ROOT + "/demo/data"), sorted(os.listdir(ROOT + "/demo/data.new")))
print(os.path.exists(ROOT + "/demo/data"))
print(read(0, ROOT + "/demo/data.new/x.txt"), read(0, ROOT + "/demo/data/x.txt"))
print(read(24, ROOT + "/nsp/data"))
try:
    os.rmdir(ROOT + "/nsp/data")
except OSError as error:
    print(error.strerror)
os.rename(ROOT + "/demo/sub", ROOT + "/demo/bus")
print(read(0, ROOT + "/demo/bus/text.txt"), read(0, ROOT + "/demo/sub/text.txt"))
print(os.path.exists(ROOT + "/demo/sub"))
shutil.rmtree(data)
print(read(0, data + "/f9"), library.c_count(0, os.fsencode(data)), os.path.exists(data))
""",
        changes=True,
    )


def test_python_too(world: World, helped: str) -> None:
    """So do `io.FileIO` and functions of Python that somebody else has kept from before `install()`."""
    out = world.run(
        "print(io.FileIO(base + '/data/f1').read(), early(base + '/data/f2').read())",
        prelude="import functools, io; early = functools.partial(open, mode='rb')\n"
        + world.install()
        + helped,
    )
    assert out == "b'data 1\\n' b'data 2\\n'"


def test_by_name(world: World, helped: str) -> None:
    """So does code that looks a function of the C library up by its name, as `ctypes` does."""
    world.both(
        helped
        + """
libc = ctypes.CDLL(None, use_errno=True)
print(os.read(libc.open(os.fsencode(base + "/data/f1"), 0), 5))
print(libc.access(os.fsencode(base + "/data/f2"), 0))
"""
    )


def test_threads_and_locks(world: World, helped: str) -> None:
    """It may hold Python's lock or not, or run in a thread that is none of Python's, or hold a lock of its
    own that another thread waits for with Python's lock: to it, a file that is fetched is on a slow disk.
    """
    world.both(
        helped
        + """
import threading
print(read(0, base + "/data/f1", holding), called(holding.c_thread, os.fsencode(base + "/data/f2")))
out = {}
def locked(lib, number):
    out[number] = called(lib.c_locked, os.fsencode(f"{base}/data/f{number}"))
threads = [threading.Thread(target=locked, args=(lib, 3 + n)) for n, lib in enumerate([library, holding] * 8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(out.items()))
"""
    )


def test_processes(world: World, helped: str) -> None:
    """It works in forked children and in child interpreters, leaves no child process to wait for, and ends
    with the program.
    """
    world.both(
        helped
        + """
import signal
signal.signal(signal.SIGCHLD, lambda *_: print("a child has ended"))
print(read(0, base + "/data/f1"))
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
pid = os.fork()
if not pid:
    print(read(0, base + "/data/f2"), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
try:
    print(os.wait())
except ChildProcessError:
    print("no children")
import subprocess
code = "import io, bulk, os; print(io.FileIO(os.path.dirname(bulk.__file__) + '/data/f3').read())"
print(subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH":
    os.pathsep.join([os.environ.get("PYTHONPATH", ""), ROOT])}, text=True))
"""
    )


def test_first_process(world: World, helped: str) -> None:
    """A program to which orphans are given, as to the first process of a container, may wait for its children
    until there are none.
    """
    world.both(
        helped
        + """
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
for name in ("f1", "f2"):
    print(read(0, f"{base}/data/{name}"))
    try:
        while True:
            os.wait()
    except ChildProcessError:
        print("no children")
"""
    )


def test_slow_fetches(world: World, helped: str) -> None:
    """It waits for a file for as long as that takes: the process that fetches says that it is at work."""
    code = "import time; from cloudimport.filler import _Peer; peer = _Peer(); peer.question(None); "
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-c", code + "time.sleep(2.5); peer.answer(0, b'', 0, 0)"], stdin=theirs
        )
        ours.sendall(struct.pack("=I", 4) + b"Fa/b")
        answers = ours.makefile("rb").read(3 * 24)
        assert [status for status, *_ in struct.iter_unpack("=iIQQ", answers)] == [-1, -1, 0]
        assert child.wait() == 0


def test_extension_loads(world: World, helped: str, native: None) -> None:
    """`dlopen` in C code finds a library of the environment, with those that it needs."""
    world.both(
        helped
        + """
libc = ctypes.CDLL(None)
libc.dlopen.restype = ctypes.c_void_p
import glob, sysconfig
path = ROOT + "/native/_ext" + sysconfig.get_config_var("EXT_SUFFIX")
print(bool(libc.dlopen(os.fsencode(path), 2)))
"""
    )


def test_callers_are_undisturbed(world: World, helped: str) -> None:
    """What C code does elsewhere is as before: a library is searched for beside the one that asks for it, and
    a thread with a small stack gets its error.
    """
    world.both(
        helped
        + """
print(library.c_beside(b"libbeside-reader.so"), library.c_beside(b"$ORIGIN/libbeside-reader.so"))
print(library.c_beside(b"libnone-reader.so"), library.c_small_stack())
"""
    )


def test_not_to_be_had(world: World, helped: str) -> None:
    """A file that the environment has and that cannot be fetched is an input/output error, with the reason on
    standard error; once it can be fetched it is there.
    """
    shelf = world.folder / "shelf"
    shutil.copytree(world.shelf.url, shelf)
    ran = world.start(
        helped
        + f"shelf = {str(shelf)!r}\n"
        + """
print(read(0, base + "/data/none"))
os.rename(shelf, shelf + ".away")
try:
    print(read(0, base + "/large.bin"), read(12, base + "/large.bin"), read(29, base + "/large.bin"))
    print(library.c_count(4, os.fsencode(base)), library.c_count(0, os.fsencode(base)))
finally:
    os.rename(shelf + ".away", shelf)
print(len(read(0, base + "/large.bin")))
""",
        env={"CLOUDIMPORT_DEADLINE": "2", "CLOUDIMPORT_SHELF": str(shelf)},
    )
    failed = "Input/output error"
    assert ran.ok() == f"No such file or directory\n{failed} {failed} {failed}\n-2 -5\n5"
    assert "bulk/large.bin cannot be had for C code that opens it: " in ran.stderr


def test_killed_filler(world: World, helped: str) -> None:
    """The process that fetches for C code may be killed: the next file is fetched by another one."""
    out = world.run(
        helped
        + f"""
import subprocess
print(read(0, base + "/data/f1"))
def fillers():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{{pid}}/cmdline") as file:
                if "cloudimport.filler" in file.read() and os.stat(f"/proc/{{pid}}").st_uid == os.getuid():
                    with open(f"/proc/{{pid}}/environ") as file:
                        if {str(world.cache)!r} in file.read():
                            found.append(int(pid))
        except OSError:
            pass
    return found
[pid] = fillers()
os.kill(pid, {signal.SIGKILL.value})
print(read(0, base + "/data/f2"), len([p for p in fillers() if p != pid]))
import cloudimport
print(cloudimport.stats()["requests"] > 0)
"""
    )
    assert out == "data \ndata  1\nTrue"


def test_closed_descriptors(world: World, helped: str) -> None:
    """A program may close all descriptors that it has not opened itself, as daemons do."""
    world.both(
        helped
        + """
print(read(0, base + "/data/f1"))
os.closerange(3, 64)
kept = [os.open("/dev/zero", os.O_RDONLY) for _ in range(20)]
print(read(0, base + "/data/f2"), {os.read(fd, 1) for fd in kept})
"""
    )


def test_uninstall(world: World, helped: str) -> None:
    """After `uninstall()` C code finds what is there, and no more."""
    out = world.run(helped + "import cloudimport; cloudimport.uninstall(); print(read(0, base + '/data/f1'))")
    assert out == "No such file or directory"


def test_without_helper(world: World, reader: Path) -> None:
    """Without the helper (no compiler when it was installed, or `CLOUDIMPORT_NATIVE=0`) C code finds what is
    materialised: a package's small data files from its import on, and what Python code has looked at. For the
    rest it gets a loud `ENOENT`, never zeros.
    """
    out = world.run(
        C.format(library=str(reader))
        + """
print(read(0, base + "/large.bin"), read(2, base + "/data/f1"))
os.path.exists(base + "/large.bin")
print(len(read(0, base + "/large.bin")))
import nsp.a
print(read(0, list(nsp.__path__)[0] + "/data/a.txt"))
""",
        env={"CLOUDIMPORT_NATIVE": "0"},
    )
    assert out == "No such file or directory No such file or directory\n5\na"
