"""The sandbox holds: no network, nothing of the curator's, nothing written, nothing left running."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from cloudimport.errors import ConfigurationError
from shelf_tools import sandbox as module
from shelf_tools.interpreters import Interpreter
from shelf_tools.process import Finished, ProcessTimeout
from shelf_tools.sandbox import GIB, MIB, Limits, Sandbox, open_sandbox
from tests.support.sandboxes import bubblewrap, others, running

LIMITS = Limits(4 * GIB, 256 * MIB, 20, 20, 20, 32 * MIB, 64, 16 * MIB, 100, 8 * MIB)
AS_ROOT = os.geteuid() == 0


def inside(text: str, *arguments: str, limits: Limits = LIMITS, **options: object) -> Finished:
    """Run Python code in the sandbox."""
    return bubblewrap().run(
        ["-I", "-S", "-B", "-c", text, *arguments],
        limits=limits,
        read_only=options.pop("read_only", {}),  # type: ignore[arg-type]
        interpreter=running()[1],
        **options,  # type: ignore[arg-type]
    )


def answer(text: str, *arguments: str, **options: object) -> object:
    """Run code that prints one JSON value; return the value."""
    done = inside("import json, os, sys\n" + text, *arguments, **options)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_nothing_of_the_environment_or_home_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code inside sees none of the curator's variables, files or processes."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    seen = answer(
        "processes = [p for p in os.listdir('/proc') if p.isdigit()]\n"
        "print(json.dumps([dict(os.environ), os.listdir('/'), processes,"
        " [os.path.exists(p) for p in sys.argv[1:]], os.getuid(), os.getcwd()]))",
        str(Path.home()),
        str(Path(__file__)),
        "/etc/shadow",
    )
    environment, top, processes, present, uid, folder = seen  # type: ignore[misc]
    assert "hush" not in str(environment)
    assert environment["HOME"] == "/tmp"
    assert set(top) <= {
        "bin",
        "dev",
        "etc",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "out",
        "proc",
        "py",
        "sbin",
    } | {
        "tmp",
        "usr",
    }
    assert len(processes) <= 3
    assert (present, uid, folder) == ([False] * 3, 1000, "/tmp")


def test_own_namespaces_and_no_privilege() -> None:
    """Every namespace is the run's own; there is no capability, no way to one, and the filter is on."""
    names = ("user", "mnt", "pid", "ipc", "uts", "net", "cgroup")
    seen = answer(
        "import socket\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "wanted = ('CapEff', 'CapPrm', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp')\n"
        "print(json.dumps([[os.readlink('/proc/self/ns/' + n) for n in sys.argv[1:]], socket.gethostname(),"
        " [int(status[name], 16) for name in wanted]]))",
        *names,
    )
    inside_names, host, (*capabilities, no_new, seccomp) = seen  # type: ignore[misc]
    outside = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    assert [name for name, a, b in zip(names, inside_names, outside, strict=True) if a == b] == []
    assert (host, capabilities, no_new, seccomp) == ("sandbox", [0, 0, 0, 0], 1, 2)


def test_no_network() -> None:
    """A listener outside cannot be reached, and there is no socket to reach it with."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        said = answer(
            "import socket\n"
            "out = []\n"
            "for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET):\n"
            "    try: socket.socket(family, socket.SOCK_RAW if family > 10 else socket.SOCK_STREAM)\n"
            "    except OSError as error: out.append(error.errno)\n"
            "socket.socketpair()\n"
            "out.append(sorted(os.listdir('/sys/class/net')) if os.path.exists('/sys') else [])\n"
            "print(json.dumps(out))"
        )
    assert said == [13, 13, 13, 13, []]


def test_everything_but_out_and_tmp_is_read_only() -> None:
    """No folder but the bounded ones can be written, not even the root."""
    said = answer(
        "def writes(folder):\n"
        "    try: open(folder + '/probe', 'w').close()\n"
        "    except OSError: return False\n"
        "    return True\n"
        "found = sorted({f for top in ('/', '/py', '/usr') for f, _, _ in os.walk(top)\n"
        "    if not f.startswith(('/proc', '/usr/share', '/usr/src')) and writes(f)})\n"
        "print(json.dumps(found))",
        limits=replace(LIMITS, cpu_seconds=200, wall_seconds=200),  # it walks all of /usr
    )
    assert said == ["/dev/shm", "/out", "/tmp"]


def test_mounts_are_read_only_and_reach_what_only_the_curator_may(tmp_path: Path) -> None:
    """A folder below one that is closed to others is readable inside, and cannot be changed."""
    secret = tmp_path / "closed" / "tree"
    secret.mkdir(parents=True)
    (secret / "file").write_text("x")
    (tmp_path / "closed").chmod(0o700)
    said = answer(
        "try: open('/tree/file', 'a'); got = 0\n"
        "except OSError as error: got = error.errno\n"
        "print(json.dumps([open('/tree/file').read(), got]))",
        read_only={PurePosixPath("/tree"): secret},
    )
    assert said in (["x", 13], ["x", 30])


@pytest.mark.parametrize(
    "call",
    [
        "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
        "libc.unshare(0x10000000)",
        "libc.unshare(0x00020000)",
        "libc.ptrace(0, 0, 0, 0)",
        "libc.syscall(321, 0, 0, 0)",
        "libc.syscall(425, 1, 0)",
        "libc.syscall(250, 0, 0)",
        "libc.syscall(323, 0)",
        "libc.syscall(298, 0, 0, -1, -1, 0)",
        "libc.syscall(435, 0, 0)",
        "libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)",
        "libc.mknod(b'/tmp/device', 0o20666, 0x103)",
        "libc.chroot(b'/tmp')",
        "libc.setuid(0)",
    ],
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of system calls are x86-64's")
def test_dangerous_calls_fail(call: str) -> None:
    """mount, unshare, ptrace, bpf, io_uring, keyctl, userfaultfd, perf, clone3 and the like fail."""
    said = answer(
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"got = {call}\n"
        "if got == 0 and 'syscall(56' in sys.argv[1]: os._exit(9)\n"
        "print(json.dumps([got, ctypes.get_errno()]))",
        call,
    )
    assert said[0] == -1  # type: ignore[index]
    assert said[1] in (1, 22, 38)  # type: ignore[index]


def test_threads_forks_and_subprocesses_still_work() -> None:
    """The filter leaves what ordinary packages do alone."""
    said = answer(
        "import subprocess, threading, multiprocessing\n"
        "t = threading.Thread(target=list); t.start(); t.join()\n"
        "lock = multiprocessing.Lock()\n"
        "print(json.dumps(subprocess.check_output(['/bin/sh', '-c', 'echo $$ | wc -l'], text=True)))"
    )
    assert said == "1\n"


def test_fork_bomb_is_contained() -> None:
    """Forking without end stops at the limit; two sandboxes do not share it."""
    text = (
        "import time\n"
        "made = 0\n"
        "try:\n"
        "    while made < 1000:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        made += 1\n"
        "except OSError as error: print(json.dumps([made, error.errno]))"
    )
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(answer(text))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    for made, number in results:  # type: ignore[misc]
        assert 10 <= made < LIMITS.processes
        assert number == 11


def test_memory_bomb_is_contained() -> None:
    """Memory ends at the limit, with an error inside and none outside."""
    done = inside("x = []\nwhile True: x.append(bytearray(1 << 20))")
    assert done.returncode == 1
    assert b"MemoryError" in done.stderr


@pytest.mark.parametrize(("folder", "size"), [("/out", LIMITS.output_bytes), ("/tmp", LIMITS.scratch_bytes)])
def test_disk_bomb_is_contained(folder: str, size: int) -> None:
    """Writing without end stops at the folder's size."""
    written, number = answer(  # type: ignore[misc]
        "n = 0\n"
        "try:\n"
        "    with open(sys.argv[1] + '/big', 'wb', buffering=0) as file:\n"
        "        while True: n += file.write(bytes(65536))\n"
        "except OSError as error: print(json.dumps([n, error.errno]))",
        folder,
    )
    assert size - 65536 <= written <= size
    assert number == 28


def test_large_file_and_many_descriptors_are_contained() -> None:
    """One file cannot exceed its limit, nor open files theirs."""
    limits = replace(LIMITS, file_bytes=1 << 16)
    done = inside("f = open('/out/x', 'wb', buffering=0)\nwhile True: f.write(bytes(1 << 15))", limits=limits)
    assert b"File too large" in done.stderr
    done = inside("x = [open('/dev/null') for _ in range(200)]")
    assert b"Too many open files" in done.stderr


def test_processor_time_is_limited() -> None:
    """A loop ends at the CPU limit."""
    began = time.monotonic()
    done = inside("while True: pass", limits=replace(LIMITS, cpu_seconds=1))
    assert done.returncode in (137, 152)
    assert time.monotonic() - began < 10


DAEMON = (
    "import os, signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        while True: time.sleep(1)\n"
    "    os._exit(0)\n"
    "time.sleep({seconds})\n"
)


def left(mark: str) -> list[int]:
    """Return the processes of this machine that have ``mark`` in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def owner(pid: int) -> int:
    """Return the uid of a process, -1 where it has just ended (those that prepare the sandbox soon do)."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return -1


def gone(mark: str) -> bool:
    """Return whether such processes are gone within seconds, for good.

    One that is being executed has no command line for a moment: it is looked for several times.
    """
    deadline, clear = time.monotonic() + 10, 0
    while clear < 5 and time.monotonic() < deadline:
        clear = 0 if left(mark) else clear + 1
        time.sleep(0.05)
    return clear == 5


@pytest.mark.parametrize("seconds", [0, 600])
def test_daemons_do_not_outlive_the_run(seconds: int) -> None:
    """A daemon that left its session dies at the end of the run, and at the wall limit."""
    mark = f"mark-{os.getpid()}-{seconds}"
    text = DAEMON.format(seconds=seconds) + f"#{mark}"
    began = time.monotonic()
    if seconds:
        with pytest.raises(ProcessTimeout):
            inside(text, limits=replace(LIMITS, wall_seconds=2))
    else:
        assert inside(text).returncode == 0
    assert time.monotonic() - began < 12
    assert gone(mark)


def test_sandbox_dies_with_its_publisher() -> None:
    """A publisher killed with SIGKILL leaves no process, no mount and no uid taken."""
    mark = f"mark-{os.getpid()}-orphan"
    publisher = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, DAEMON.format(seconds=600) + f"#{mark}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline, running = time.monotonic() + 20, 0
    while running < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
        running = len(left(mark))  # one that is being executed is not seen for a moment
    assert running >= 4
    publisher.send_signal(signal.SIGKILL)
    publisher.wait()
    assert gone(mark)
    assert "/run/cloudimport" not in Path("/proc/self/mounts").read_text()
    assert answer("print(1)") == 1


PUBLISHER = """\
import sys
from tests.integration.test_sandbox import LIMITS
from tests.support.sandboxes import bubblewrap, running
from dataclasses import replace
bubblewrap().run(["-I", "-S", "-c", sys.argv[1]], limits=replace(LIMITS, wall_seconds=300), read_only={},
    interpreter=running()[1])
"""


@pytest.mark.skipif(not AS_ROOT, reason="only root has uids to give away")
def test_each_concurrent_run_has_its_own_uid() -> None:
    """As root, runs at the same time are of different uids, none of them root's."""
    barrier = threading.Barrier(3)
    uids: list[int] = []

    def look(mark: str) -> None:
        worker = threading.Thread(target=inside, args=(f"import time; time.sleep(8) #{mark}",))
        worker.start()
        deadline = time.monotonic() + 30
        found: set[int] = set()
        while len(found) < 1 and time.monotonic() < deadline:
            found = {uid for pid in left(mark) if (uid := owner(pid)) > 0}
            time.sleep(0.02)
        uids.extend(found)
        barrier.wait(60)
        worker.join()

    threads = [threading.Thread(target=look, args=(f"mark-{os.getpid()}-uid{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(uids)) == 3


def test_debian_interpreter_works_where_there_is_one() -> None:
    """An interpreter whose prefix is /usr runs inside."""
    path = Path("/usr/bin/python3")
    if not path.exists():
        pytest.skip("this machine has no /usr/bin/python3")
    real = path.resolve()
    interpreter = Interpreter(real, Path("/usr"), (3, 11, 2), "", Path("/usr/lib"))
    done = bubblewrap().run(
        ["-I", "-S", "-c", "import sys, json; print(sys.prefix)"],
        limits=LIMITS,
        read_only={},
        interpreter=interpreter,
    )
    assert (done.returncode, done.stdout) == (0, b"/usr\n")


@pytest.mark.long
def test_other_interpreters_work() -> None:
    """Every interpreter that is found runs inside, with its extension modules."""
    for target, interpreter in others():
        done = bubblewrap().run(
            ["-I", "-S", "-c", "import sys, ctypes, hashlib, zlib; print(sys.version_info[:2])"],
            limits=LIMITS,
            read_only={},
            interpreter=interpreter,
        )
        assert done.stdout.decode().strip() == str(target.python), done.stderr.decode()


ORDINARY = """\
import sys
from pathlib import Path, PurePosixPath
from shelf_tools.sandbox import *
from shelf_tools.interpreters import running_interpreter
limits = Limits(4 * GIB, 256 * MIB, 20, 20, 20, 32 * MIB, 64, 16 * MIB, 100, 8 * MIB)
code = '''
import os, time
made = 0
print(os.getuid(), sorted(os.listdir("/tree")), os.path.exists("/root"))
try:
    while made < 100:
        if os.fork() == 0: time.sleep(60)
        made += 1
except OSError as error: print(made < 20, error.errno)
'''
mounts = {PurePosixPath("/tree"): Path(sys.argv[1])}
argv = ["-I", "-S", "-c", code]
done = open_sandbox().run(argv, limits=limits, read_only=mounts, interpreter=running_interpreter())
sys.stdout.buffer.write(done.stdout)
print(sorted(done.seen), flush=True)
sys.stderr.buffer.write(done.stderr)
"""


@contextmanager
def world_readable(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder with what an ordinary user needs to import this project."""
    import shutil

    import elftools
    import installer
    import pyseccomp

    root = Path(__file__).parents[2]
    with module.tempfile.TemporaryDirectory(prefix="ordinary-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for source in (root / "cloudimport", root / "shelf_tools", Path(installer.__file__).parent):
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(Path(elftools.__file__).parent, folder / "elftools")
        shutil.copy(pyseccomp.__file__, folder)
        subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
        yield folder


@pytest.mark.skipif(not AS_ROOT, reason="the other tests are run by an ordinary user already")
@pytest.mark.skipif(
    not Path("/usr/bin/python3").exists(), reason="needs an interpreter that everybody can reach"
)
def test_ordinary_user_is_held_too(tmp_path: Path) -> None:
    """Without root, the sandbox works the same, its limit on processes too."""
    bubblewrap()
    with world_readable(tmp_path) as folder:
        (folder / "tree").mkdir(mode=0o755)
        done = subprocess.run(
            [
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "/usr/bin/python3",
                "-B",
                "-c",
                ORDINARY,
            ]
            + [str(folder / "tree")],
            env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    seen = ["oom_kills", "output_bytes", "output_files", "scratch_bytes"]
    assert done.stdout == f"1000 [] False\nTrue 11\n{seen}\n", done.stderr


WRITER = """\
import sys
from pathlib import Path, PurePosixPath
from shelf_tools.sandbox import *
from shelf_tools.interpreters import running_interpreter
limits = Limits(4 * GIB, 256 * MIB, 20, 20, 20, 32 * MIB, 64, 16 * MIB, 100, 8 * MIB)
code = '''
import os
kept = os.open("/wheel", os.O_RDONLY)
for call in (lambda: os.open("/wheel", os.O_RDWR), lambda: os.open(f"/proc/self/fd/{kept}", os.O_RDWR),
    lambda: os.fchmod(kept, 0o777), lambda: os.truncate("/wheel", 0)):
    try: call(); print("done")
    except OSError as error: print(error.errno)
'''
mounts = {PurePosixPath("/wheel"): Path(sys.argv[1])}
argv = ["-I", "-S", "-c", code]
done = open_sandbox().run(argv, limits=limits, read_only=mounts, interpreter=running_interpreter())
sys.stdout.buffer.write(done.stdout)
sys.stderr.buffer.write(done.stderr)
"""


@pytest.mark.skipif(not AS_ROOT, reason="the other tests are run by an ordinary user already")
@pytest.mark.skipif(
    not Path("/usr/bin/python3").exists(), reason="needs an interpreter that everybody can reach"
)
def test_ordinary_users_own_file_cannot_be_written(tmp_path: Path) -> None:
    """What runs inside as the curator's own uid cannot write a mounted file, by no way to open it."""
    bubblewrap()
    with world_readable(tmp_path) as folder:
        wheel = folder / "wheel"
        wheel.write_bytes(b"x")
        os.chown(wheel, 65534, 65534)
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            + ["/usr/bin/python3", "-B", "-c", WRITER, str(wheel)],
            env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.split() == ["30"] * 4, done.stderr  # EROFS
        assert wheel.read_bytes() == b"x"


def test_missing_tools_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bubblewrap the error is one line that says how to install it."""
    monkeypatch.setattr(
        module.shutil, "which", lambda tool, path=None: None if tool == "bwrap" else f"/usr/bin/{tool}"
    )
    with pytest.raises(ConfigurationError, match="needs bwrap: apt-get install bubblewrap") as caught:
        open_sandbox("bubblewrap")
    assert "\n" not in str(caught.value)


def test_missing_libseccomp_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without libseccomp or its binding the error is one line that says how to install them."""
    module.seccomp.program.cache_clear()
    monkeypatch.setitem(sys.modules, "pyseccomp", None)
    with pytest.raises(ConfigurationError, match="apt-get install libseccomp2 && pip install"):
        open_sandbox("bubblewrap")


def test_forbidden_namespaces_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bubblewrap cannot start, the error has its reason and what must be permitted."""
    monkeypatch.setattr(
        module.process,
        "run",
        lambda *a, **k: Finished(1, b"", b"bwrap: No permissions to create new namespace\n"),
    )
    with pytest.raises(
        ConfigurationError, match=r"No permissions to create new namespace.*user namespaces must"
    ):
        open_sandbox("bubblewrap")


def test_other_names_are_refused() -> None:
    """Only bubblewrap and none are sandboxes, and none is never a fallback."""
    with pytest.raises(ConfigurationError, match="'docker' is not a sandbox"):
        open_sandbox("docker")
    assert open_sandbox("none").name == "none"


def test_unconfined_has_limits_too(tmp_path: Path) -> None:
    """Asked for by name, no sandbox still limits time and memory and hides the environment."""
    sandbox: Sandbox = open_sandbox("none")
    (tmp_path / "file").write_text("x")
    mounts = {PurePosixPath("/tree"): tmp_path}
    done = sandbox.run(
        [
            "-I",
            "-S",
            "-c",
            "import os, sys; print(open(sys.argv[1]).read(), sorted(os.environ)[:2], sys.argv[2])",
        ]
        + [PurePosixPath("/tree/file"), module.OUT],
        limits=LIMITS,
        read_only=mounts,
        interpreter=running()[1],
    )
    assert done.stdout.startswith(b"x ['HOME'")
    done = sandbox.run(
        ["-I", "-S", "-c", "x = bytearray(1 << 30)"], limits=LIMITS, read_only={}, interpreter=running()[1]
    )
    assert b"MemoryError" in done.stderr
    with pytest.raises(ProcessTimeout):
        sandbox.run(["/bin/sleep", "60"], limits=replace(LIMITS, wall_seconds=1), read_only={})
