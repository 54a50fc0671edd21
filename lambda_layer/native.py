"""The native helper for the layer, by zig's C compiler: for either architecture, the same bytes each time."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.ids import MACHINES, Target
from shelf_tools import process
from shelf_tools.interpreters import Interpreter

#: The oldest C library of a Python that is supported; its symbols are there in all newer ones.
_GLIBC = "2.17"
#: Seconds; 4 as a rule, 30 the first time for an architecture, when its C library's stubs are made.
_TIMEOUT = 300.0
_INCLUDE = "import sysconfig; print(sysconfig.get_path('include'))"
#: No path and no number of a build gets in: the file depends on the source, the headers and the compiler.
_FLAGS = "-shared -fPIC -O2 -std=gnu11 -fvisibility=hidden -fno-sanitize=all -s -Wl,--build-id=none".split()


def build(
    source: bytes, target: Target, interpreter: Interpreter, work: Path, environ: Mapping[str, str]
) -> bytes:
    """Return the extension module. ``work`` is a folder for files.

    The headers are the interpreter's: what a module of the stable ABI takes from them is the same on
    x86-64 and aarch64, which have the same sizes of types. Raises ConfigurationError or CloudImportError.
    """
    if find_spec("ziglang") is None:
        raise ConfigurationError("the layer needs a C compiler for both architectures: pip install ziglang")
    (work / "_native.c").write_bytes(source)
    out = work / "_native.abi3.so"
    argv = [sys.executable, "-m", "ziglang", "cc", "-target", f"{target.machine}-linux-gnu.{_GLIBC}", *_FLAGS]
    argv += [f"-I{folder}" for folder in _headers(interpreter, work / "headers")]
    argv += ["-o", str(out), str(work / "_native.c"), "-ldl", "-lpthread"]
    env = {"ZIG_GLOBAL_CACHE_DIR": str(work / "zig"), **environ} if "HOME" not in environ else dict(environ)
    done = process.run(argv, timeout=_TIMEOUT, env={**env, "ZIG_LOCAL_CACHE_DIR": str(work / "cache")})
    if done.returncode:
        raise CloudImportError(f"the native helper cannot be built for {target}: {_first_error(done.stderr)}")
    return out.read_bytes()


def _headers(interpreter: Interpreter, work: Path) -> list[Path]:
    """Return the folders of Python's headers. Raises ConfigurationError."""
    done = process.run([str(interpreter.executable), "-I", "-S", "-c", _INCLUDE], timeout=_TIMEOUT)
    folder = Path(done.stdout.decode().strip())
    if not (folder / "Python.h").is_file():
        name = f"python{interpreter.version[0]}.{interpreter.version[1]}"
        raise ConfigurationError(
            f"{interpreter} has no C headers in {folder}: apt-get install {name}-dev, or have another one, "
            f"as of 'uv python install'"
        )
    return [folder, *_multiarch(folder, work)]


def _multiarch(folder: Path, work: Path) -> list[Path]:
    """Return a folder in which Debian's pyconfig.h finds that of the machine, as every machine's.

    It includes ``<x86_64-linux-gnu/python3.11/pyconfig.h>``, which lies beside headers of the C library.
    """
    found = [folder.parent / f"{machine}-linux-gnu" / folder.name / "pyconfig.h" for machine in MACHINES]
    real = next((path for path in found if path.is_file()), None)
    if real is None:
        return []
    for machine in MACHINES:
        made = work / f"{machine}-linux-gnu" / folder.name / "pyconfig.h"
        made.parent.mkdir(parents=True)
        made.write_bytes(real.read_bytes())
    return [work]


def _first_error(stderr: bytes) -> str:
    lines = stderr.decode("utf-8", "replace").splitlines()
    return next((line for line in lines if "error:" in line), lines[-1] if lines else "the compiler failed")
