"""The runtime and its native helper on aarch64: cross-compiled, run under user-mode emulation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloudimport.ids import Target
from tests.support.children import REPOSITORY, Runner
from tests.support.shelves import MadeShelf

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
SUPPORT = REPOSITORY / "tests/support"
SCRIPT = """
import ctypes, io, os, sys
sys.executable = {python!r}  # of the process that the emulator runs it is the emulator
import cloudimport
env = cloudimport.install(lock={lock!r}, cache={cache!r})
import bulk
print(env.target, bulk.answer)
library, holding = ctypes.CDLL({reader!r}), ctypes.PyDLL({reader!r})
base = os.path.dirname(bulk.__file__)
def called(function, *arguments):
    out = ctypes.create_string_buffer(300)
    got = function(*arguments, out)
    return out.raw[:got].decode() if got >= 0 else os.strerror(-got)
print([called(library.c_read, way, os.fsencode(f"{{base}}/data/f{{way}}")) for way in range(17)])
print(called(library.c_read, 0, os.fsencode(base + "/data/none")))
print(called(holding.c_thread, os.fsencode(base + "/data/f20")))
print([library.c_count(way, os.fsencode(base + "/data")) for way in range(5)])
print(io.FileIO(base + "/large.bin").read(3))
"""


@pytest.mark.long
@pytest.mark.network
@pytest.mark.skipif(
    not shutil.which(COMPILER) or not shutil.which(EMULATOR),
    reason="apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static",
)
def test_runtime_and_helper(tmp_path: Path) -> None:
    """Modules run, and C code finds files in every way, as on x86-64."""
    unpacked = subprocess.run(
        [str(SUPPORT / "aarch64_python.sh"), str(tmp_path / "arm")],
        capture_output=True,
        text=True,
        check=False,
    )
    if unpacked.returncode:
        pytest.skip(f"apt has no packages for arm64: {unpacked.stderr[-200:]}")
    version, root = unpacked.stdout.strip(), tmp_path / "arm/root"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {EMULATOR} -L {root} {root}/usr/bin/python{version} "$@"\n')
    python.chmod(0o755)
    runtime = _runtime(tmp_path / "runtime", version, root)
    reader = tmp_path / "reader.so"
    _compile(REPOSITORY / "tests/semantics/reader.c", reader)
    shelf = MadeShelf(tmp_path, target=Target.parse(f"cp{version.replace('.', '')}-manylinux_2_28_aarch64"))
    files = {f"bulk/data/f{n}": f"data {n}\n" for n in range(40)}
    large = bytes(range(256)) * 5000
    shelf.add("bulk", "1", {"bulk/__init__.py": "answer = 42\n", "bulk/large.bin": large, **files})
    shelf.environment()
    code = SCRIPT.format(
        python=str(python), lock=str(shelf.lock), cache=str(tmp_path / "cache"), reader=str(reader)
    )
    lines = Runner(tmp_path / "home", str(python), [str(runtime)]).run(code).ok().splitlines()
    assert lines == [
        f"{shelf.target} 42",
        str(
            ["data "] * 5
            + ["7"] * 4
            + ["yes", "yes", "/f11", "data ", "data ", "File exists", "data "]
            + ["Invalid argument"]
        ),
        "No such file or directory",
        "data ",
        str([40] * 5),
        "b'\\x00\\x01\\x02'",
    ]


def _runtime(folder: Path, version: str, root: Path) -> Path:
    """Return a folder with the runtime, the helper compiled for aarch64, and the codec's wheel for it."""
    shutil.copytree(
        REPOSITORY / "cloudimport",
        folder / "cloudimport",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    headers = [f"-I{root}/usr/include/python{version}", f"-I{root}/usr/include"]
    _compile(folder / "cloudimport/_native.c", folder / "cloudimport/_native.abi3.so", *headers)
    platforms = ("--platform", "manylinux2014_aarch64", "--platform", "manylinux_2_28_aarch64")
    wanted = ("--only-binary", ":all:", "--no-deps", "--python-version", version, "backports.zstd")
    pip = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run(
        [*pip, *platforms, *wanted, "--target", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def _compile(source: Path, library: Path, *options: str) -> None:
    flags = ("-O2", "-std=gnu11", "-fvisibility=default", "-shared", "-fPIC")
    subprocess.run([COMPILER, *flags, *options, str(source), "-o", str(library), "-ldl"], check=True)
