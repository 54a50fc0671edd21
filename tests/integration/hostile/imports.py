"""Rows: what a package does while it is imported for its trace, and what its inner modules do after that."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig

from tests.integration.hostile.row import CONTAINED, Place, Row, imported, wheel
from tests.support.wheels import build_wheel

TRIED = """\
import os, sys
said = []
def tried(what, call):
    try: said.append(f"{what}: {call()}")
    except BaseException as error: said.append(f"{what}: {type(error).__name__}")
"""
TELL = "raise RuntimeError('; '.join(said))\n"
NETWORK = (
    TRIED
    + """\
import socket, urllib.request
tried("tcp", lambda: socket.create_connection(("127.0.0.1", @PORT@), 2))
tried("v6", lambda: socket.socket(socket.AF_INET6))
tried("raw", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
tried("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
tried("vsock", lambda: socket.socket(40))
tried("url", lambda: urllib.request.urlopen("http://127.0.0.1:@PORT@/", timeout=2))
tried("agent", lambda: socket.socket(socket.AF_UNIX).connect("@AGENT@"))
tried("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0@MARK@"))
"""
)
READS = (
    TRIED
    + """\
for path in ("/etc/shadow", "/etc/passwd", "/root", "@HOME@", "@HOME@/.aws/credentials", "@HOME@/.netrc",
    "@HOME@/.ssh", "@PROJECT@", "@SHELF@", "/proc/@PUBLISHER@/environ", "/run", "/var", "/home"):
    tried(os.path.basename(path), lambda: len(os.listdir(path)) if os.path.isdir(path) else len(open(path).read()))
"""
)
ENVIRONMENT = (
    TRIED
    + """\
import glob
seen = repr(dict(os.environ))
for path in glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/fd/*"):
    try: seen += open(path, errors="replace").read(1 << 16) if "fd" not in path else os.readlink(path)
    except OSError: pass
for word in ("AWS", "AKIA", "hu" + "sh-", "@HOME@", "@PROJECT@", "TOKEN", "PIP_"):
    said.append(f"{word.replace('@HOME@', 'home')}: {word in seen}".replace("@PROJECT@", "project"))
"""
)
WRITES = (
    TRIED
    + """\
def write(path):
    with open(path, "w") as out: out.write("x")
    return "written"
here = os.path.dirname(os.path.abspath(__file__))
for path in (__file__, here + "/@MARK@", "/@MARK@", "/etc/@MARK@", "/usr/@MARK@", "/usr/local/bin/@MARK@",
    "/dev/@MARK@", "/run/@MARK@", "@HOME@/@MARK@", "/pyc/@MARK@", "/inside/@MARK@", "/proc/sys/kernel/core_pattern",
    "/proc/1/oom_score_adj", "/sys/@MARK@"):
    tried(os.path.dirname(path)[:11], lambda: write(path))
for fd in range(3, 30):
    try: os.lseek(fd, 0, 0)
    except OSError: continue
    tried(f"fd {fd}", lambda: write(f"/proc/self/fd/{fd}"))
"""
)
CALLS = (
    TRIED
    + """\
import ctypes, signal
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *values):
    got = getattr(libc, name)(*values)
    return "done" if got >= 0 else os.strerror(ctypes.get_errno())[:23]
tried("mount", lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None))
tried("unshare", lambda: call("unshare", 0x10000000))
tried("ptrace", lambda: call("ptrace", 16, 1, 0, 0))
tried("setuid", lambda: call("setuid", 0))
tried("mknod", lambda: call("mknod", b"/tmp/mem", 0o20666, 0x101))
tried("chroot", lambda: call("chroot", b"/tmp"))
tried("setns", lambda: call("setns", os.open("/proc/1/ns/net", 0), 0))
tried("kill", lambda: os.kill(@PUBLISHER@, 9))
tried("tty", lambda: open("/dev/tty"))
tried("mem", lambda: open("/dev/mem"))
"""
)
MAKES = (
    TRIED
    + """\
import socket
for folder in ("/tmp", "/out", "/dev/shm"):
    os.chdir(folder)
    for what, call in (("link", lambda: os.symlink("/etc/shadow", "@MARK@-l")),
        ("hard", lambda: os.link("/usr/bin/env", "@MARK@-h")), ("pipe", lambda: os.mkfifo("@MARK@-p")),
        ("node", lambda: os.mknod("@MARK@-n", 0o20666, os.makedev(1, 1))),
        ("suid", lambda: (open("@MARK@-s", "w").close(), os.chmod("@MARK@-s", 0o6777))[1])):
        tried(what, call)
"""
)
FORKS = """\
import os, time
made = 0
try:
    while True:
        if os.fork() == 0: time.sleep(600)
        made += 1
except OSError as error: raise RuntimeError(f"stopped {'at' if made < 64 else 'after'} the limit: {error.strerror}")
"""
BOMBER = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n"
MEMORY = "kept = []\nwhile True: kept.append(bytearray(1 << 20))\n"
DISK = """\
import os
said = []
def fill(path, size):
    done = 0
    try:
        with open(path, "wb", buffering=0) as out:
            while True: done += out.write(bytes(size))
    except OSError as error: said.append(f"{path}: {error.strerror} at {done >> 20} MiB")
fill("/tmp/a", 1 << 20); fill("/tmp/b", 1 << 20); fill("/out/a", 1 << 20); fill("/dev/shm/a", 1 << 20)
raise RuntimeError("; ".join(said))
"""
SPARSE = """\
import os
said = []
def sparse(path):
    with open(path, "wb") as out: out.truncate(1 << 40)
for folder in ("/tmp", "/out", "/dev/shm"):
    try: sparse(folder + "/huge"); said.append("made")
    except OSError as error: said.append(error.strerror)
raise RuntimeError("; ".join(said))
"""
INODES = """\
import os
made = 0
try:
    while made < 200_000:
        os.mkdir(f"/tmp/{made}"); made += 1
    raise RuntimeError(f"{made} folders, and gone with the run")
except OSError as error: raise RuntimeError(f"{error.strerror}")
"""
DAEMON = """\
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", "import time\\nwhile 1: time.sleep(1)", "@MARK@"])
        os._exit(0)
"""
HANGS = """\
import os, signal, time
if os.path.isdir("/inside") or os.getuid() == 1000:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))
    time.sleep(3600)
"""
SPINS = "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass\n"
FORGES = """\
import json, os
lines = [["open", "../../etc/passwd"], ["native", "/etc/shadow"], ["imports", "x", "/etc/shadow"], ["open", ["x"]],
    7, ["end", "forges", "\\x1b[31m"], ["begin", "os"], ["end", "os", ""], ["open", "innocent/deep.py"]]
for fd in range(3, 32):
    try:
        for line in lines: os.write(fd, json.dumps(line).encode() + b"\\n")
        os.write(fd, b"[" * 100_000 + b"\\n" + b"9" * 5000 + b"\\n\\xff\\n")
    except OSError: pass
"""
FLOODS = """\
import os
for fd in range(1, 32):
    try:
        for _ in range(40): os.write(fd, b"[]\\n" * 400_000)
    except OSError: pass
"""
REPLACES = """\
import builtins, importlib, json, os, signal, sys
def broken(*arguments, **named): raise SystemExit("broken")
json.dumps = os.write = signal.setitimer = importlib.import_module = builtins.__import__ = broken
sys.meta_path.clear(); sys.modules.pop("os")
"""
POISONS = """\
import sys
class Poison(type(sys)):
    @property
    def __file__(self):
        while True: pass
    def __getattr__(self, name): raise SystemExit(name)
for name in list(sys.modules): sys.modules[name] = Poison(name)
sys.modules[__name__] = Poison(__name__)
"""
PAIRS = """\
import json, os
for fd in range(3, 16):
    try:
        for a in range(400):
            os.write(fd, b"".join(json.dumps(["imports", f"pairs/m{a}.py", f"pairs/m{b}.py"]).encode() + b"\\n"
                for b in range(400)))
    except OSError: pass
"""
CRASH = """\
#include <signal.h>
#include <stdlib.h>
__attribute__((constructor)) static void crash(void) { signal(SIGSEGV, SIG_DFL); *(volatile int *)8 = 1; }
"""
#: As `TRACE_LIMITS`, but nothing has to wait for minutes.
SOON = {"trace-wall-time": "6s", "trace-cpu-time": "6s"}


def crashing(place: Place, name: str) -> list[str]:
    """Make a wheel with an extension module that crashes while it is loaded."""
    compiler = shutil.which("cc")
    assert compiler, "this row needs a C compiler: apt-get install gcc"
    source = place.folder.parent / "crash.c"
    source.write_text(CRASH)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    subprocess.run(
        [compiler, "-shared", "-fPIC", str(source), "-o", str(source.with_suffix(".so"))], check=True
    )
    build_wheel(place.folder, name, "1.0", {f"crashing{suffix}": source.with_suffix(".so").read_bytes()})
    return [f"{name}==1.0"]


def spoiling(place: Place, name: str) -> list[str]:
    """Make a package whose import hangs, and one that depends on it and imports it."""
    build_wheel(place.folder, name, "1.0", {f"{name}.py": place.code(HANGS)})
    files = {"victim/__init__.py": "from victim import first\nimport spoiling\n", "victim/first.py": ""}
    build_wheel(place.folder, "victim", "1.0", files, requires=[name])
    return [f"{name}==1.0", "victim==1.0"]


def _note(name: str, text: str) -> str:
    return f"note: {name}==1: {name.replace('-', '_')} cannot be imported in the sandbox: {text}"


def _inner(**modules: str) -> dict[str, str | bytes]:
    return {"NAME/__init__.py": "", **{f"NAME/{name}.py": text for name, text in modules.items()}}


DENIED, NONE, ERROR = "PermissionError", "FileNotFoundError", "OSError"

ROWS = (
    Row(
        "network",
        "connects to the machine, by every kind of socket",
        CONTAINED,
        (
            _note(
                "network",
                "RuntimeError: tcp: PermissionError; v6: PermissionError; raw: PermissionError; netlink: "
                "PermissionError; vsock: PermissionError; url: URLError; agent: FileNotFoundError; abstract: "
                "ConnectionRefusedError",
            ),
        ),
        imported(NETWORK + TELL),
    ),
    Row(
        "reads",
        "reads /etc/shadow, the curator's home, project and shelf, other processes",
        CONTAINED,
        (
            _note(
                "reads",
                "RuntimeError: shadow: FileNotFoundError; passwd: FileNotFoundError; root: FileNotFoundError; "
                "…credentials: FileNotFoundError; .netrc: FileNotFoundError; …",
            ),
        ),
        imported(READS + TELL),
    ),
    Row(
        "environment",
        "looks for secrets in the environment and in /proc",
        CONTAINED,
        (
            _note(
                "environment",
                "RuntimeError: AWS: False; AKIA: False; hush-: False; home: False; project: False; "
                "TOKEN: False; PIP_: False",
            ),
        ),
        imported(ENVIRONMENT + TELL),
    ),
    Row(
        "writes",
        "writes into its own folder, the system, the home, its tools and through open files",
        CONTAINED,
        (_note("writes", "RuntimeError: written: 0"),),
        imported(
            WRITES + "raise RuntimeError(f'written: {str(said).count(chr(58) + chr(32) + \"written\")}')\n"
        ),
    ),
    Row(
        "calls",
        "asks the kernel for mounts, namespaces, other processes, devices and root",
        CONTAINED,
        (
            _note(
                "calls",
                "RuntimeError: mount: Operation not permitted; unshare: Operation not permitted; ptrace: "
                "Operation not permitted; setuid: …; mknod: Operation not permitted; chroot: Operation not permitted; "
                "setns: …; kill: ProcessLookupError; tty: …; mem: FileNotFoundError",
            ),
        ),
        imported(CALLS + TELL),
    ),
    Row(
        "makes",
        "makes links, hard links, pipes, devices and setuid files wherever it can",
        CONTAINED,
        (
            _note(
                "makes", "RuntimeError: link: None; hard: …; pipe: None; node: PermissionError; suid: None; …"
            ),
        ),
        imported(MAKES + TELL),
        then="they were in the sandbox's memory, and are gone with it",
    ),
    Row(
        "forks",
        "forks until it cannot",
        CONTAINED,
        (
            _note(
                "forks",
                "RuntimeError: stopped at the limit: …had more than 64 processes and threads while it was imported (--trace-processes)",
            ),
        ),
        imported(FORKS),
    ),
    Row(
        "fork-bomb",
        "a fork bomb that never ends",
        CONTAINED,
        (_note("fork-bomb", "killed after 2 s, half of what was left of --trace-wall-time"),),
        imported(BOMBER),
        limits={"trace-wall-time": "4s"},
    ),
    Row(
        "memory-bomb",
        "takes memory without end",
        CONTAINED,
        (
            _note(
                "memory-bomb",
                "MemoryError: …used more than 256 MiB of memory while it was imported (--trace-memory)",
            ),
        ),
        imported(MEMORY),
        limits={"trace-memory": "256MiB"},
    ),
    Row(
        "disk-bomb",
        "writes until every folder is full",
        CONTAINED,
        (
            _note(
                "disk-bomb",
                "RuntimeError: /tmp/a: File too large at 64 MiB; …No space left on device…: wrote more than 16 MiB of output while it was imported (--trace-output)",
            ),
        ),
        imported("import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + DISK),
    ),
    Row(
        "sparse",
        "files of a terabyte without bytes",
        CONTAINED,
        (
            _note(
                "sparse",
                "RuntimeError: File too large; File too large; File too large: …wrote a file of more than 64 MiB while it was imported (--trace-largest-file)",
            ),
        ),
        imported("import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + SPARSE),
    ),
    Row(
        "inodes",
        "makes folders without end",
        CONTAINED,
        (_note("inodes", "made more than 10000 files and folders while it was imported (--trace-files)"),),
        imported(INODES),
        then="they are gone with the run",
    ),
    Row(
        "spins",
        "never ends, and does not hear the alarm",
        CONTAINED,
        (_note("spins", "took more than 2 s of processor time while it was imported (--trace-cpu-time)"),),
        imported(SPINS),
        limits={"trace-cpu-time": "2s"},
    ),
    Row(
        "hangs",
        "finds out that it is in the sandbox, blocks every signal and sleeps",
        CONTAINED,
        (_note("hangs", "took longer than 3 s while it was imported (--trace-wall-time)"),),
        imported(HANGS),
        limits={"trace-wall-time": "3s"},
    ),
    Row(
        "daemon",
        "leaves daemons that ignore signals",
        CONTAINED,
        (),
        imported(DAEMON),
        then="they end with the run",
    ),
    Row(
        "kills",
        "kills its parent, its group and everything",
        CONTAINED,
        (_note("kills", "the process ended with status …"),),
        imported(
            "import os\nfor pid in (os.getppid(), 1, 0, -1):\n    try: os.kill(pid, 9)\n"
            "    except OSError: pass\n"
        ),
    ),
    Row(
        "forges",
        "writes a report of its own: files elsewhere, modules that it is not",
        CONTAINED,
        (),
        imported(FORGES),
        then="names that are not in its own tree are not heard",
    ),
    Row(
        "floods",
        "writes 500 MB to every descriptor",
        CONTAINED,
        (),
        imported(FLOODS),
        limits=SOON,
        then="16 MiB are kept, and read in seconds",
    ),
    Row(
        "shouts",
        "an exception with a million characters that steer a terminal",
        CONTAINED,
        (_note("shouts", "RuntimeError:  [31m…"),),
        imported("raise RuntimeError('\\x1b[31m\\x9b\\u202e' * 300_000)\n"),
    ),
    Row(
        "many-errors",
        "a thousand modules that fail",
        CONTAINED,
        ("note: many-errors==1: and 980 more notes",),
        wheel({f"many{n}.py": "raise ValueError\n" for n in range(1000)}),
        then="20 notes are shown",
    ),
    Row(
        "replaces",
        "replaces what the tracer uses: json, os, signal, the import system",
        CONTAINED,
        (),
        wheel({"replaces.py": REPLACES, "zzz.py": ""}),
        then="published, in the order that was seen",
    ),
    Row(
        "exits",
        "ends the process with status 0, in the middle",
        CONTAINED,
        (_note("exits", "the process ended with status 0: exit status 0"),),
        imported("import os\nos._exit(0)\n"),
    ),
    Row(
        "crashing",
        "an extension module that crashes while it is loaded",
        CONTAINED,
        (_note("crashing", "the process ended with status …"),),
        crashing,
    ),
    Row(
        "spoiling",
        "hangs when another package imports it in its own trace",
        CONTAINED,
        (
            "note: victim==1: victim cannot be imported in the sandbox: took longer than 6 s while it was imported (--trace-wall-time)",
        ),
        spoiling,
        "two wheels",
        limits=SOON,
        then="the other package has the same content, in static order",
    ),
    Row(
        "inner-attacks",
        "all of that in modules below the package, which a second process imports",
        CONTAINED,
        (),
        wheel(_inner(a=NETWORK, b=WRITES, c=DAEMON, d=FORGES, e=REPLACES)),
        then="published; of modules below a package nobody hears",
    ),
    Row(
        "inner-hangs",
        "modules below it that hang, die and fork without end",
        CONTAINED,
        (),
        wheel(_inner(a=HANGS, b=BOMBER, c="import os\nos._exit(0)\n", d=SPINS)),
        limits=SOON,
        then="given up after its time; published without what they import",
    ),
    Row(
        "inner-poison",
        "puts objects that never answer into sys.modules",
        CONTAINED,
        (),
        wheel(_inner(a="import poison\n", b=POISONS, c="import innocent\n")),
        limits=SOON,
        then="given up after its time",
    ),
    Row(
        "pairs",
        "reports 160,000 imports between its 400 modules",
        CONTAINED,
        (),
        wheel({"NAME/__init__.py": "", "NAME/aaa.py": PAIRS, **{f"NAME/m{n}.py": "" for n in range(400)}}),
        then="hints are bounded, for modules that are its own",
    ),
)
