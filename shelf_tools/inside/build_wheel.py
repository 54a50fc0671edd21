"""Inside the sandbox: build one source distribution by PEP 517, write the wheel as one tar stream.

``python -I -S -B build_wheel.py SDIST WORK OUT TOOLS WHEELS TASK``: SDIST is the archive. WORK and OUT
are empty folders, TOOLS has the ``installer`` and ``pyproject_hooks`` packages, WHEELS the build
requirements. TASK is JSON: ``{"name": file name}`` asks for ``pyproject.toml`` only; with ``backend``,
``path`` and ``known`` (the requirements that WHEELS were chosen for), it is built. The stream has
``report.json`` and, if all that the backend asks for is known, ``wheel/NAME.whl``.
Exit status 3 with one line on standard error: the archive is refused.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, BinaryIO

#: Bytes of pyproject.toml, and requirements that a backend may ask for; real ones are far below.
MOST_TEXT = 1 << 20
MOST_REQUIREMENTS = 200
#: 1980-01-01, the first moment that a zip archive can hold: wheels of one build environment are equal.
EPOCH = "315532800"


class RefusedError(Exception):
    """The archive cannot be built; the text is one line."""


def one_line(error: object) -> str:
    """Return an error's text as one printable line."""
    text = "".join(c if c.isprintable() else " " for c in (str(error) or type(error).__name__))
    return text[:300]


def unpack(name: str, stream: BinaryIO, into: str) -> str:
    """Unpack the archive; return the one folder in it (PEP 625)."""
    os.mkdir(into)
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(stream) as archive:
                archive.extractall(into)
        else:
            with tarfile.open(fileobj=stream, mode="r:*") as tar:
                if hasattr(tarfile, "data_filter"):
                    tar.extractall(into, filter="data")
                else:  # an older patch release
                    tar.extractall(into, members=inner(tar))
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise RefusedError(one_line(error)) from None
    found = os.listdir(into)
    if len(found) != 1 or not os.path.isdir(os.path.join(into, found[0])):
        raise RefusedError(f"the archive has {len(found)} entries at its top, not one folder")
    return os.path.join(into, found[0])


def inner(members: Iterable[tarfile.TarInfo]) -> Iterator[tarfile.TarInfo]:
    """Yield members; raises RefusedError for what PEP 706's filter refuses by its name or kind."""
    for member in members:
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise RefusedError(one_line(f"{member.name!r} is no file, folder or link"))
        places = [member.name]
        if member.islnk():
            places.append(member.linkname)
        elif member.issym():  # an absolute target stays one
            places.append(os.path.join(os.path.dirname(member.name), member.linkname))
        for place in places:
            if os.path.isabs(place) or os.path.normpath(place).split(os.sep)[0] == os.pardir:
                raise RefusedError(one_line(f"{member.name!r} leads out of the folder"))
        yield member


def project(source: str) -> str | None:
    """Return the text of pyproject.toml, None if there is none."""
    path = os.path.join(source, "pyproject.toml")
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as stream:
        data = stream.read(MOST_TEXT + 1)
    if len(data) > MOST_TEXT:
        raise RefusedError("its pyproject.toml is too large")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError("its pyproject.toml is not UTF-8") from None


def make_environment(folder: str, wheels: str) -> str:
    """Make a virtual environment with the wheels installed; return its interpreter."""
    from pathlib import Path

    import installer
    from installer.destinations import SchemeDictionaryDestination
    from installer.sources import WheelFile

    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", folder], check=True)
    python = os.path.join(folder, "bin", "python")
    site = "{}/lib/python{}.{}/site-packages".format(folder, *sys.version_info[:2])
    for name in sorted(os.listdir(wheels)):
        headers = os.path.join(folder, "include", "site", name.partition("-")[0])
        scheme = {"purelib": site, "platlib": site, "data": folder, "headers": headers}
        destination = SchemeDictionaryDestination({**scheme, "scripts": folder + "/bin"}, python, "posix")
        with WheelFile.open(Path(wheels, name)) as wheel:
            installer.install(wheel, destination, {})
    return python


def hooks(source: str, python: str, task: Mapping[str, Any]) -> Any:
    """Return the caller of the backend's hooks: each is a process of the environment, in ``source``."""
    from pyproject_hooks import BuildBackendHookCaller

    home = os.path.dirname(os.path.dirname(python))

    def run(
        cmd: Sequence[str], cwd: str | None = None, extra_environ: Mapping[str, str] | None = None
    ) -> None:
        environment = {**os.environ, **(extra_environ or {}), "VIRTUAL_ENV": home}
        environment["PATH"] = os.path.dirname(python) + os.pathsep + environment["PATH"]
        environment.update(SOURCE_DATE_EPOCH=EPOCH, PYTHONHASHSEED="0")
        subprocess.run(cmd, cwd=cwd, env=environment, check=True)

    return BuildBackendHookCaller(source, task["backend"], task["path"] or None, run, python)


def build(source: str, work: str, out: str, wheels: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """Build the wheel into ``out``, unless the backend asks for what is not known; return the report."""
    caller = hooks(source, make_environment(os.path.join(work, "environment"), wheels), task)
    wanted = [str(one) for one in caller.get_requires_for_build_wheel()]
    if not set(wanted) <= set(task["known"]):
        return {"requires": wanted[:MOST_REQUIREMENTS]}
    return {"wheel": caller.build_wheel(out)}


def send(stream: BinaryIO, report: Mapping[str, Any], wheel: str) -> None:
    """Write the tar stream (GNU format, nothing in it but names, sizes and contents)."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 18) as archive:
        data = json.dumps(report).encode()
        info = tarfile.TarInfo("report.json")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
        if wheel:
            info = tarfile.TarInfo("wheel/" + os.path.basename(wheel))
            info.size = os.path.getsize(wheel)
            with open(wheel, "rb") as content:
                archive.addfile(info, content)


def main() -> int:
    """Unpack, look or build, send."""
    sdist, work, out, tools, wheels, text = sys.argv[1:7]
    sys.path.append(tools)
    os.umask(0o022)
    task = json.loads(text)
    # What backends and compilers print is no part of the stream.
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)
        try:
            with open(sdist, "rb") as archive:
                source = unpack(task["name"], archive, os.path.join(work, "source"))
            if "backend" not in task:
                send(stream, {"pyproject": project(source)}, "")
                return 0
            report = build(source, work, out, wheels, task)
        except RefusedError as error:
            sys.stderr.write(f"{error}\n")
            return 3
        except subprocess.CalledProcessError as error:
            return error.returncode & 255 or 1
        send(stream, report, os.path.join(out, str(report["wheel"])) if "wheel" in report else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
