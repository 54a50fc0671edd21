"""The ways in which a package gets to where it is imported, side by side.

Each is given what it can be given: pins that need no search, wheels with their metadata beside them, the
same server, TLS with one root, nothing to write but what it needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from cloudimport.fetch.plan import CONNECTIONS
from cloudimport.format.lock import Lock
from tests.bench.link import Link
from tests.bench.measuring import Command, write_program
from tests.bench.store import Store
from tests.bench.workloads import Workload


@dataclass(frozen=True)
class Bench:
    """Where everything is: the link, the store behind it, interpreters, and what was prepared."""

    link: Link
    store: Store
    #: Interpreter with the runtime and nothing else, in which every program runs (others load modules of
    #: their own at their start, from .pth files), and the one it was made from, which has pip.
    runtime: str
    python: str
    version: str
    #: What was prepared, a folder for each workload; and where runs have folders of their own.
    prepared: Path
    runs: Path

    @property
    def sdk(self) -> Path:
        """Where boto3 is that a function's runtime brings along."""
        return self.prepared / "sdk"

    def of(self, workload: Workload) -> Path:
        """Return where a workload's files are."""
        return self.prepared / workload.name


#: Makes the command of a run, in a fresh folder.
Way = Callable[[Bench, Workload, Path], Command]

#: By the SDK that the function's runtime has, with a signature: what handlers do.
_UNPACK_BY_SDK = """\
import os, sys, zipfile
sys.path.append({sdk!r})
import boto3
boto3.client("s3").download_file({bucket!r}, {key!r}, "package.zip")
zipfile.ZipFile("package.zip").extractall("package")
os.unlink("package.zip")
sys.path.insert(0, "package")
"""
#: By the least code that can, of what everybody may read.
_UNPACK = """\
import http.client, os, ssl, sys, urllib.parse, zipfile
_url = urllib.parse.urlsplit({url!r})
_context = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
_connection = http.client.HTTPSConnection(_url.netloc, context=_context)
_connection.request("GET", _url.path)
with open("package.zip", "wb") as _file:
    _response = _connection.getresponse()
    while _piece := _response.read(1 << 20):
        _file.write(_piece)
zipfile.ZipFile("package.zip").extractall("package")
os.unlink("package.zip")
sys.path.insert(0, "package")
"""
_OURS = "import cloudimport; cloudimport.install()"


def pip(bench: Bench, workload: Workload, run: Path) -> Command:
    """``pip install --target``, then the import."""
    program = write_program(run / "program.py", workload)
    command = [*_pip(bench, "install"), "--target", "package", "-r", str(workload.pins(bench.version))]
    return _shell(bench, command, [bench.runtime, str(program)])


def pip_in_steps(bench: Bench, workload: Workload, run: Path) -> Command:
    """``pip download``, ``pip install`` of that, import: what each takes."""
    program = write_program(run / "program.py", workload)
    pins = str(workload.pins(bench.version))
    download = [*_pip(bench, "download"), "--dest", "wheels", "-r", pins]
    install = [bench.python, "-m", "pip", "--no-input", "--disable-pip-version-check", "install", "--quiet"]
    install += ["--no-index", "--find-links", "wheels", "--target", "package", "-r", pins]
    marks = (["echo", "mark downloaded"], ["echo", "mark installed"])
    return _shell(bench, download, marks[0], install, marks[1], [bench.runtime, str(program)])


def uv(bench: Bench, workload: Workload, run: Path) -> Command:
    """``uv pip install --target``, then the import, which compiles."""
    return _uv(bench, workload, run)


def uv_compiled(bench: Bench, workload: Workload, run: Path) -> Command:
    """``uv pip install --target --compile-bytecode``, then the import."""
    return _uv(bench, workload, run, "--compile-bytecode")


def archive(bench: Bench, workload: Workload, run: Path) -> Command:
    """One zip of the sources on S3, unpacked, then the import."""
    return _archive(bench, workload, run, "sources.zip")


def archive_compiled(bench: Bench, workload: Workload, run: Path) -> Command:
    """One zip with bytecode on S3, unpacked, then the import."""
    return _archive(bench, workload, run, "compiled.zip")


def archive_by_sdk(bench: Bench, workload: Workload, run: Path) -> Command:
    """One zip with bytecode on S3, fetched by boto3 and unpacked, then the import."""
    key = f"{workload.name}/compiled.zip"
    before = _UNPACK_BY_SDK.format(sdk=str(bench.sdk), bucket=bench.store.bucket, key=key)
    program = write_program(run / "program.py", workload, before)
    return Command(
        [bench.runtime, str(program)], {**bench.store.server.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    )


def mount(bench: Bench, workload: Workload, run: Path) -> Command:
    """A FUSE mount (rclone) of the unpacked tree with bytecode, then the import."""
    program = write_program(run / "program.py", workload)
    (run / "package").mkdir()
    remote = (
        f":s3,provider=Ceph,env_auth=true,force_path_style=true,endpoint='{bench.store.server.endpoint}':"
        f"{bench.store.bucket}/{workload.name}/tree"
    )
    options = ["--read-only", "--daemon", "--vfs-cache-mode", "full", "--cache-dir", "cache", "--config"]
    options += ["/dev/null", "--ca-cert", str(bench.store.server.root), "--use-server-modtime"]
    options += ["--dir-cache-time", "1h", "--attr-timeout", "1h"]
    return _shell(
        bench,
        [_tool("rclone"), "mount", remote, "package", *options],
        [bench.runtime, str(program)],
        last=["fusermount3", "-u", "package"],
        environ={**bench.store.server.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def naive(bench: Bench, workload: Workload, run: Path) -> Command:
    """An importer with a GET for each module."""
    here = Path(__file__).parents[2]
    url = bench.store.url(f"{workload.name}/tree")
    before = f"from tests.bench.naive_import import install; install({url!r}, 'package')"
    program = write_program(run / "program.py", workload, before)
    return Command([bench.runtime, str(program)], {**_trust(bench), "PYTHONPATH": str(here)})


def bare(bench: Bench, workload: Workload, run: Path) -> Command:
    """The ranges of the boot image, read over as many connections and not looked at: what the link takes."""
    here = Path(__file__).parents[2]
    lock = Lock.decode((bench.of(workload) / "boot.lock").read_text(), "boot.lock")
    rows = [
        (f"/{bench.store.bucket}/shelf/{row.key(target)}", row.start, row.length)
        for target, boot in lock.boots.items()
        for row in boot
    ]
    url = urlsplit(bench.store.server.endpoint)
    arguments = (url.hostname, url.port, CONNECTIONS, rows)
    code = f"from tests.bench.bare_read import read; read(*{arguments!r})"
    program = write_program(run / "program.py", replace(workload, imports=code, first="pass"))
    return Command([bench.runtime, str(program)], {**_trust(bench), "PYTHONPATH": str(here)})


def local(bench: Bench, workload: Workload, run: Path) -> Command:
    """Local site-packages with bytecode, warm: what the import itself takes."""
    program = write_program(run / "program.py", workload)
    tree = bench.of(workload) / "compiled"
    return Command([bench.runtime, str(program)], {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"})


def ours_cold(bench: Bench, workload: Workload, run: Path) -> Command:
    """This project with an empty cache."""
    return _ours(bench, workload, run, run / "cache")


def ours_boot(bench: Bench, workload: Workload, run: Path) -> Command:
    """This project with an empty cache and a boot image."""
    return _ours(bench, workload, run, run / "cache", "boot.lock")


def ours_warm(bench: Bench, workload: Workload, run: Path) -> Command:
    """This project with what the runs before have cached."""
    return _ours(bench, workload, run, bench.of(workload) / "cache")


def ours_held(bench: Bench, workload: Workload, run: Path) -> Command:
    """As warm, with garbage collection held back."""
    warm = ours_warm(bench, workload, run)
    return Command(warm.argv, {**warm.environ, "CLOUDIMPORT_HOLD_GC": "1"})


def ours_second(bench: Bench, workload: Workload, run: Path) -> Command:
    """As cold, on a host that has mirrored what the lockfile needs."""
    cold = ours_cold(bench, workload, run)
    return Command(cold.argv, {**cold.environ, "CLOUDIMPORT_SHARED": str(bench.of(workload) / "shared")})


#: By the name that tables and options have for them.
WAYS: dict[str, Way] = {
    "pip": pip,
    "uv": uv,
    "uv compiled": uv_compiled,
    "zip": archive,
    "zip compiled": archive_compiled,
    "zip boto3": archive_by_sdk,
    "FUSE": mount,
    "naive": naive,
    "local": local,
    "bare": bare,
    "cold": ours_cold,
    "boot": ours_boot,
    "second": ours_second,
    "warm": ours_warm,
    "held": ours_held,
    "steps": pip_in_steps,
}


def prepare(bench: Bench, workload: Workload) -> None:
    """Put on the store what the ways need of a workload, and beside it what a warm one has."""
    folder, pins = bench.of(workload), workload.pins(bench.version)
    folder.mkdir(parents=True)
    if not bench.sdk.exists():
        _run([*_own_pip("--python", bench.python, "install"), "--target", str(bench.sdk), "boto3"])
    download = [
        *_own_pip("download"),
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder / "wheels"),
    ]
    _run([*download, "-r", str(pins)])
    bench.store.add_wheels(folder / "wheels")
    install = [*_own_pip("--python", bench.python, "install"), "--no-deps", "--no-index", "--no-compile"]
    _run([*install, "--target", str(folder / "sources"), *map(str, (folder / "wheels").iterdir())])
    shutil.copytree(folder / "sources", folder / "compiled")
    # By hash and unchecked: times change on the way through an archive or a store.
    compile_all = [bench.python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*compile_all, str(folder / "compiled")], check=False, stdout=subprocess.DEVNULL)
    with ThreadPoolExecutor(1) as beside:
        theirs = beside.submit(_store, bench, workload)
        _publish(bench, workload, pins)
        theirs.result()


def _store(bench: Bench, workload: Workload) -> None:
    """Put archives and the tree on the store."""
    folder = bench.of(workload)
    for name in ("sources", "compiled"):
        _zip(folder / name, folder / f"{name}.zip")
        bench.store.put_file(f"{workload.name}/{name}.zip", folder / f"{name}.zip")
        (folder / f"{name}.zip").unlink()
    bench.store.put_tree(f"{workload.name}/tree", folder / "compiled")


def _publish(bench: Bench, workload: Workload, pins: Path) -> None:
    """Publish, with a boot image, and mirror."""
    folder = bench.of(workload)
    lock, boot = folder / "cloudimport.lock", folder / "boot.lock"
    _shelf(bench, "publish", "-r", str(pins), "--shelf", bench.store.shelf, "--lock", str(lock))
    shutil.copy(lock, boot)
    program = write_program(folder / "program.py", workload)
    _shelf(bench, "trace", str(program), "--lock", str(lock), "-o", str(folder / "trace.json"))
    _shelf(bench, "boot", str(folder / "trace.json"), "--lock", str(boot))
    _shelf(bench, "mirror", str(folder / "shared"), "--lock", str(lock))


def _shelf(bench: Bench, *arguments: str) -> None:
    command = [sys.executable, "-c", "import sys; from shelf_tools.cli import main; sys.exit(main())"]
    here = str(Path(__file__).parents[2])
    _run([*command, *arguments], {**bench.store.server.environ, "PYTHONPATH": here})


def _zip(tree: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(tree))


def _archive(bench: Bench, workload: Workload, run: Path, name: str) -> Command:
    before = _UNPACK.format(url=bench.store.url(f"{workload.name}/{name}"))
    program = write_program(run / "program.py", workload, before)
    # What writes bytecode of its own would pay for it within the first import.
    return Command([bench.runtime, str(program)], {**_trust(bench), "PYTHONDONTWRITEBYTECODE": "1"})


def _uv(bench: Bench, workload: Workload, run: Path, *options: str) -> Command:
    program = write_program(run / "program.py", workload)
    command = [_tool("uv"), "pip", "install", "--quiet", "--no-cache", "--no-config", "--target", "package"]
    command += ["--python", bench.python, "--default-index", bench.store.index, *options]
    command += ["-r", str(workload.pins(bench.version))]
    return _shell(bench, command, [bench.runtime, str(program)])


def _ours(
    bench: Bench, workload: Workload, run: Path, cache: Path, lock: str = "cloudimport.lock"
) -> Command:
    program = write_program(run / "program.py", workload, _OURS, "cloudimport.stats()")
    environ = {
        **bench.store.server.environ,
        "CLOUDIMPORT_LOCK": str(bench.of(workload) / lock),
        "CLOUDIMPORT_CACHE": str(cache),
    }
    return Command([bench.runtime, str(program)], environ)


def _pip(bench: Bench, what: str) -> list[str]:
    command = [bench.python, "-m", "pip", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    return [*command, what, "--quiet", "--index-url", bench.store.index]


def _own_pip(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check"]
    return [*command, *arguments, "--quiet"]


def _trust(bench: Bench) -> dict[str, str]:
    root = str(bench.store.server.root)
    return {"AWS_CA_BUNDLE": root, "PIP_CERT": root, "SSL_CERT_FILE": root}


def _shell(
    bench: Bench,
    *commands: list[str],
    last: list[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Command:
    """Return a command that runs others in turn, until one fails, and ``last`` in any case."""
    from shlex import join

    script = " && ".join(map(join, commands))
    if last is not None:
        script += f"; found=$?; {join(last)}; exit $found"
    return Command(["sh", "-c", script], {**_trust(bench), "PYTHONPATH": "package", **(environ or {})})


def _tool(name: str) -> str:
    """Return a program of this virtual environment."""
    return str(Path(sys.executable).with_name(name))


def _run(command: list[str], environ: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(environ or {})}, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} …: {done.stderr[-2000:]}")
