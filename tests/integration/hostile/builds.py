"""Rows: what a source distribution does once a curator has allowed it to be built."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping

from tests.integration.hostile.imports import (
    BOMBER,
    DAEMON,
    ENVIRONMENT,
    HANGS,
    MEMORY,
    NETWORK,
    READS,
    SPARSE,
    TELL,
    TRIED,
)
from tests.integration.hostile.row import CONTAINED, REFUSED, Place, Row
from tests.support.sdists import build_sdist, own_backend
from tests.support.wheels import build_wheel

Make = Callable[[Place, str], list[str]]

WRITES = (
    TRIED
    + """\
def write(path, mode="r+b"):
    with open(path, mode) as out: out.write(b"x")
    return "written"
for path in ("/@MARK@", "/etc/@MARK@", "/usr/bin/@MARK@", "/wheels/@MARK@", "/inside/@MARK@", "@HOME@/@MARK@",
    "@PROJECT@/@MARK@", "/proc/sys/kernel/core_pattern", "/proc/1/oom_score_adj"):
    tried("new", lambda: write(path, "wb"))
kept = open("/sdist", "rb")
for path in ("/sdist", f"/proc/self/fd/{kept.fileno()}", "/usr/bin/env", "/inside/build_wheel.py"):
    tried("there", lambda: write(path))
raise RuntimeError(f"written: {str(said).count(': written')}")
"""
)
#: Files without bytes, and bytes without end, in the folder where sources are unpacked.
DISK = "for n in range(10**6): open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))\n"
INODES = "for n in range(10**6): open(f'/tmp/{n}', 'wb').close()\n"
#: Runs whenever an interpreter starts that has it in its site-packages folder.
PTH = "import os; os.environ.setdefault('PTH', '1'); open('/tmp/ran', 'w').close(); open('@HOME@/@MARK@', 'w')\n"


def built(code: str, **options: str) -> Make:
    """Return how to make a source distribution whose backend runs ``code`` before it zips a wheel."""

    def make(place: Place, name: str) -> list[str]:
        spelt = name.replace("-", "_")
        files = own_backend(spelt, before=place.code(code), **options)
        build_sdist(place.folder, name, "1.0", files)
        return [f"{name}==1.0"]

    return make


def packed(files: Mapping[str, str | bytes]) -> Make:
    """Return how to make a source distribution of ``files``."""

    def make(place: Place, name: str) -> list[str]:
        build_sdist(place.folder, name, "1.0", files)
        return [f"{name}==1.0"]

    return make


def linked(place: Place, name: str) -> list[str]:
    """Make a source distribution with a link to /etc and a file below it."""
    with tarfile.open(place.folder / f"{name.replace('-', '_')}-1.0.tar.gz", "w:gz") as archive:
        way = tarfile.TarInfo(f"{name}-1.0/way")
        way.type, way.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(way)
        file = tarfile.TarInfo(f"{name}-1.0/way/{place.words['MARK']}")
        file.size = 1
        archive.addfile(file, io.BytesIO(b"x"))
    return [f"{name}==1.0"]


def wide(place: Place, name: str) -> list[str]:
    """Make a source distribution of 200 kB with 200 MiB of zeros."""
    build_sdist(place.folder, name, "1.0", {"zeros": bytes(200 << 20)})
    return [f"{name}==1.0"]


def needing(place: Place, name: str) -> list[str]:
    """Make a source distribution, and a build requirement with a ``.pth`` that is executed in the build."""
    build_wheel(place.folder, "tool", "1.0", {"tool.py": "", "tool.pth": place.code(PTH)})
    return built("import os\nassert os.path.exists('/tmp/ran')\n", system_requires="['tool']")(place, name)


def row(name: str, does: str, says: str, make: Make, outcome: str = REFUSED, **more: object) -> Row:
    """Return a row that may be built, with a line that begins with the package's name."""
    lines = (f"{name}==1…: {says}",) if says else ()
    return Row(name, does, outcome, lines, make, **{"made": "sdist", "allow_sdist": True, **more})  # type: ignore[arg-type]


def failing(name: str, does: str, says: str, code: str) -> Row:
    """Return a row whose build ends with an error that tells what came of it."""
    file = f"{name.replace('-', '_')}-1.0.tar.gz"
    return row(name, does, f"{file} does not build: {says}", built(code))


def passing(name: str, does: str, limit: str, value: str, says: str, make: Make, **more: str) -> Row:
    """Return a row whose build passes a limit."""
    return row(
        name,
        does,
        f"{says} while it was built (--build-{limit})",
        make,
        limits={f"build-{limit}": value, **more},
    )


ROWS = (
    failing(
        "build-network",
        "connects to the machine while it is built",
        "RuntimeError: tcp: PermissionError; v6: PermissionError; raw: PermissionError; netlink: PermissionError; "
        "vsock: PermissionError; url: URLError; agent: FileNotFoundError; abstract: ConnectionRefusedError",
        NETWORK + TELL,
    ),
    failing(
        "build-reads",
        "reads /etc/shadow, the curator's home, project and shelf while it is built",
        "RuntimeError: shadow: FileNotFoundError; passwd: FileNotFoundError; root: FileNotFoundError; "
        "…credentials: FileNotFoundError; .netrc: FileNotFoundError; …",
        READS + TELL,
    ),
    failing(
        "build-environment",
        "looks for secrets in the environment and in /proc while it is built",
        "RuntimeError: AWS: False; AKIA: False; hush-: False; home: False; project: False; TOKEN: False; PIP_: False",
        ENVIRONMENT + TELL,
    ),
    failing(
        "build-writes",
        "writes into the system, the home, the build requirements and its own archive while it is built",
        "RuntimeError: written: 0",
        WRITES,
    ),
    failing(
        "build-kills",
        "kills its parent and everything while it is built",
        "exit status 137",
        "import os\nfor pid in (os.getppid(), -1, 1):\n    try: os.kill(pid, 9)\n    except OSError: pass\n",
    ),
    row(
        "build-daemon",
        "leaves daemons that ignore signals and outlive the build",
        "",
        built(DAEMON),
        CONTAINED,
        then="built and published; the daemons end with the run",
    ),
    passing(
        "build-endless",
        "a build that computes without end",
        "cpu-time",
        "2s",
        "took more than 2 s of processor time",
        built("while True: pass\n"),
    ),
    passing(
        "build-hangs",
        "a build that finds out that it is in the sandbox, blocks every signal and sleeps",
        "wall-time",
        "4s",
        "took longer than 4 s",
        built(HANGS),
    ),
    passing(
        "build-fork-bomb",
        "a fork bomb in the build",
        "wall-time",
        "4s",
        "took longer than 4 s",
        built(BOMBER),
        **{"build-processes": "60"},
    ),
    passing(
        "build-memory-bomb",
        "takes memory without end while it is built",
        "memory",
        "256MiB",
        "…used more than 256 MiB of memory",
        built(MEMORY),
    ),
    passing(
        "build-disk-bomb",
        "writes without end while it is built",
        "scratch",
        "32MiB",
        "wrote more than 32 MiB of temporary files",
        built(DISK),
    ),
    passing(
        "build-inodes",
        "makes files without end while it is built",
        "files",
        "1000",
        "made more than 1000 files and folders",
        built(INODES),
    ),
    passing(
        "build-sparse",
        "files of a terabyte without bytes while it is built",
        "largest-file",
        "64MiB",
        "…wrote a file of more than 64 MiB",
        built("import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + SPARSE),
    ),
    passing(
        "sdist-bomb",
        "a source distribution of 200 kB that unpacks to 200 MiB",
        "scratch",
        "32MiB",
        "wrote more than 32 MiB of temporary files",
        wide,
    ),
    row(
        "sdist-dotdot",
        "a name with `..` in a source distribution",
        "sdist_dotdot-1.0.tar.gz is refused: …",
        packed({"../../../evil": "x"}),
    ),
    row(
        "sdist-links",
        "a link to /etc in a source distribution, and a file below it",
        "sdist_links-1.0.tar.gz is refused: …",
        linked,
    ),
    row(
        "build-other-name",
        "a build that makes a wheel of another package",
        "the build made a wheel of innocent==1",
        built("", wheel_name="innocent"),
    ),
    row(
        "build-other-version",
        "a build that makes a wheel of another version",
        "the build made a wheel of build-other-version==2",
        built("", version="2.0"),
    ),
    row(
        "build-metadata",
        "a build that makes a wheel whose METADATA is another package's",
        "the wheel's METADATA says that it is innocent==1",
        built(
            "PARTS[NAME + '.dist-info/METADATA'] = 'Metadata-Version: 2.1\\nName: innocent\\nVersion: 1.0\\n'"
        ),
    ),
    row(
        "build-link",
        "a build that hands over a link to /etc/shadow as its wheel",
        "build_link-1.0.tar.gz does not build: FileNotFoundError: …",
        built(
            "os.symlink('/etc/shadow', folder + '/x-1.0-py3-none-any.whl')\nreturn 'x-1.0-py3-none-any.whl'"
        ),
    ),
    row(
        "build-path",
        "a build that says that its wheel lies elsewhere",
        "build_path-1.0.tar.gz does not build: …",
        built("return '../../etc/passwd'"),
    ),
    row(
        "build-needs-path",
        "a build requirement that is a file of the curator's",
        "its build requirement 'x @ file:///etc/passwd' is a URL, which is not fetched",
        built("", requires="['x @ file:///etc/passwd']"),
    ),
    row(
        "build-needs-pth",
        "a build requirement with a `.pth` that is executed in the build, and writes into the home",
        "",
        needing,
        CONTAINED,
        made="sdist and wheel",
        then="built and published; it ran in the sandbox of the build only",
    ),
)
