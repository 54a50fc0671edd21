"""Rows: what an installer that a wheel has taken over could do in its sandbox.

Installing a wheel runs nothing of it; here a script runs in the place of the one that installs.
"""

from __future__ import annotations

from tests.integration.hostile.imports import ENVIRONMENT, NETWORK, READS, SPARSE, TRIED, WRITES
from tests.integration.hostile.row import CONTAINED, REFUSED, Row, wheel

MADE = "wheel, another script in the installer's place"
#: Ends as the real script does when it refuses a wheel: with status 3 and a line.
REFUSES = "sys.stderr.write('; '.join(said) + '\\n')\nsys.exit(3)\n"
#: Writes a tar stream of items with a whole installation, and what ``odd`` adds.
STREAM = """\
import io, json, os, sys, tarfile, time
name = sys.argv[1].partition("-")[0]
out = sys.stdout.buffer
archive = tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT)
def add(path, data=b"", **more):
    item = tarfile.TarInfo(path)
    item.size = len(data)
    for key, value in more.items(): setattr(item, key, value)
    archive.addfile(item, io.BytesIO(data))
def finish(notes=(), bad={}):
    add("tree/" + name + ".py", b"x = 1\\n")
    head = "Metadata-Version: 2.1\\nName: %s\\nVersion: 1.0\\n" % name.replace("_", "-")
    add(f"tree/{name}-1.0.dist-info/METADATA", head.encode())
    add("report.json", json.dumps({"notes": list(notes), "bad": bad}).encode())
    archive.close()
"""


def taken(name: str, does: str, says: str, script: str, outcome: str = REFUSED, **more: object) -> Row:
    """Return a row whose script runs in the installer's place."""
    found = f"note: {name}==1: {says}" if outcome == CONTAINED else f"{name}==1…: {says}"
    lines = (found,) if says else ()
    return Row(name, does, outcome, lines, wheel({"NAME.py": ""}), MADE, installer=script, **more)  # type: ignore[arg-type]


def sent(name: str, does: str, says: str, odd: str, outcome: str = REFUSED, **more: object) -> Row:
    """Return a row whose script sends ``odd`` beside a whole installation."""
    return taken(name, does, says, f"{STREAM}{odd}\nfinish()\n", outcome, **more)


SOON = {"install-wall-time": "4s", "install-cpu-time": "4s"}

ROWS = (
    taken(
        "install-network",
        "connects to the machine while it is installed",
        "refused: tcp: PermissionError; v6: PermissionError; raw: PermissionError; netlink: PermissionError; "
        "vsock: PermissionError; url: URLError; agent: FileNotFoundError; abstract: ConnectionRefusedError",
        NETWORK + REFUSES,
    ),
    taken(
        "install-reads",
        "reads /etc/shadow and the curator's files while it is installed",
        "refused: shadow: FileNotFoundError; passwd: FileNotFoundError; root: FileNotFoundError; …: FileNotFoundError; "
        "credentials: FileNotFoundError; .netrc: FileNotFoundError; …",
        READS + REFUSES,
    ),
    taken(
        "install-environment",
        "looks for secrets while it is installed",
        "refused: AWS: False; AKIA: False; hush-: False; home: False; project: False; TOKEN: False; PIP_: False",
        ENVIRONMENT + REFUSES,
    ),
    taken(
        "install-writes",
        "writes into the system, the home and the wheel that it was given",
        "refused: written: 0",
        WRITES + "said[:] = [f'written: {str(said).count(chr(58) + chr(32) + \"written\")}']\n" + REFUSES,
    ),
    taken(
        "install-wheel",
        "writes into the wheel that it was given, by its name and by way of /proc",
        "refused: input is a file: False; name: …; proc: …",
        TRIED + "import stat\nwheel = open('/wheel', 'rb')\nkept = wheel.fileno()\n"
        "tried('input is a file', lambda: stat.S_ISREG(os.fstat(0).st_mode))\n"
        "tried('name', lambda: open('/wheel', 'r+b').write(b'x'))\n"
        "tried('proc', lambda: open(f'/proc/self/fd/{kept}', 'r+b').write(b'x'))\n"
        "tried('mode', lambda: os.fchmod(kept, 0o777))\n" + REFUSES,
    ),
    taken(
        "install-sparse",
        "makes files of a terabyte while it is installed",
        "refused: File too large; File too large; File too large",
        "import signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        + SPARSE.replace('raise RuntimeError("; ".join(said))\n', "")
        + REFUSES,
    ),
    taken(
        "install-scratch",
        "fills the folder for temporary files while it is installed",
        "wrote more than 8 MiB of temporary files while it was installed (--install-scratch)",
        "for n in range(99): open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))\n",
        limits={"install-scratch": "8MiB"},
    ),
    taken(
        "install-endless",
        "never ends while it is installed",
        "took longer than 4 s while it was installed (--install-wall-time)",
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64))\ntime.sleep(3600)\n",
        limits=SOON,
    ),
    taken(
        "install-daemon",
        "a daemon that keeps the output open and goes on after the installer's end",
        "the install failed: the output ended early",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(3600)\n",
    ),
    taken(
        "install-stream",
        "output without end",
        "wrote more than 32 MiB of output while it was installed (--install-output)",
        STREAM + "for n in range(100): add(f'tree/{n}', bytes(1 << 20))\n",
        limits={"install-output": "32MiB"},
    ),
    taken(
        "install-noise",
        "noise instead of its output",
        "the output is not a tar stream",
        "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 4096)\n",
    ),
    taken(
        "install-after-end",
        "output that goes on after its end",
        "the output goes on after its end",
        STREAM + "finish()\nfor _ in range(4000): out.write(b'x' * 65536)\n",
    ),
    taken(
        "install-cut",
        "output that ends in the middle",
        "the install failed: the output ended early",
        STREAM + "add('tree/a', b'x' * 100_000)\nout.write(b'\\0' * 10)\nout.flush()\nos._exit(0)\n",
    ),
    taken(
        "install-says",
        "a refusal that steers a terminal",
        "refused: ?[31mshelf: all is well",
        "import sys\nsys.stderr.write('\\x1b[31mshelf: all is well\\n')\nsys.exit(3)\n",
    ),
    sent("out-dotdot", "`..` in the output", "…'tree/../../evil' is not allowed", "add('tree/../../evil')"),
    sent("out-absolute", "an absolute name in the output", "…'/tmp/evil' is not allowed", "add('/tmp/evil')"),
    sent(
        "out-symlink",
        "a symbolic link in the output",
        "'tree/link' is a link: refused",
        "add('tree/link', type=b'2', linkname='/etc/shadow')",
    ),
    sent(
        "out-hardlink",
        "a hard link in the output",
        "'tree/link' is a hard link: refused",
        "add('tree/link', type=b'1', linkname='/etc/shadow')",
    ),
    sent(
        "out-device",
        "a device in the output",
        "'tree/mem' is a device: refused",
        "add('tree/mem', type=b'3')",
    ),
    sent(
        "out-pipe",
        "a named pipe in the output",
        "'tree/pipe' is a named pipe: refused",
        "add('tree/pipe', type=b'6')",
    ),
    sent(
        "out-setuid",
        "a setuid file in the output",
        "'tree/su' has a setuid or setgid bit: refused",
        "add('tree/su', mode=0o4755)",
    ),
    sent(
        "out-not-utf8",
        "a name that is no text in the output",
        "the name b'tree/\\xff\\xfe' is not UTF-8",
        "add('tree/\\udcff\\udcfe')",
    ),
    sent(
        "out-long",
        "a name of 5,000 bytes in the output",
        "the output has a name that is too long",
        "add('tree/' + 'n/' * 2500)",
    ),
    sent("out-twice", "a file twice in the output", "'tree/a' comes twice", "add('tree/a')\nadd('tree/a')"),
    sent(
        "out-pax",
        "extended headers in the output",
        "… is neither a file nor a folder: refused",
        "add('tree/x', b'30 path=../../evil\\n' * 100, type=b'x')",
    ),
    sent(
        "out-many",
        "more files in the output than a limit allows",
        "made more than 300 files and folders while it was installed (--install-files)",
        "for n in range(400): add(f'tree/{n}')",
        limits={"install-files": "300"},
    ),
    sent(
        "out-metadata",
        "METADATA that is a folder",
        "the wheel installs 0 METADATA files, not one",
        "add('tree/x-1.dist-info/METADATA/x')\nfinish = lambda: (add('report.json', b'{\"notes\":[],\"bad\":{}}'), "
        "archive.close())",
    ),
    taken(
        "out-report",
        "a report with a million notes that steer a terminal",
        "?[31m",
        STREAM + "finish(['\\x1b[31m' * 1000] * 1000, {'\\n\\x1b[32m': '\\r'})\n",
        CONTAINED,
        then="50 are read, 20 shown",
    ),
    taken(
        "out-report-deep",
        "a report of brackets without end",
        "the installer's report cannot be read: …",
        STREAM + "add('tree/a')\nadd('report.json', b'[' * 1_000_000)\narchive.close()\n",
    ),
    taken(
        "out-report-huge",
        "a report of 20 MiB",
        "the installer's report cannot be read: too large",
        STREAM + "add('tree/a')\nadd('report.json', b' ' * (20 << 20))\narchive.close()\n",
    ),
    taken(
        "out-bytecode",
        "bytecode that is none",
        "",
        STREAM + "add('code/' + name + '.py.code', b'\\xe3' + bytes(range(256)) * 100)\nfinish()\n",
        CONTAINED,
        then="data; the curator's own interpreter never loads it",
    ),
)
