"""What is in the layer, and that it is the same bytes every time.

The zip is unpacked to /opt ("Packaging your layer content", AWS Lambda Developer Guide):
``cloudimport-exec`` at the top, and below ``python/`` the runtime with its bytecode, its native helper, and
of its one dependency the extension module that it loads. Nothing else, no folder that a handler's import
could find there besides ``cloudimport``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cloudimport
from cloudimport.errors import ConfigurationError
from cloudimport.ids import Target
from lambda_layer import archive, bytecode, codec, native
from shelf_tools import swap
from shelf_tools.interpreters import Interpreter, find_interpreter
from shelf_tools.workfolder import work_folder

#: Of the runtimes of AWS ("Lambda runtimes"), those that cloudimport supports.
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
#: As AWS names them.
ARCHITECTURES = ("arm64", "x86_64")
#: Bytes of a zip: what a function owner is asked to take along. Made are 1.1 million.
BUDGET = 3_000_000

#: Where Lambda unpacks it.
_IN_LAMBDA = "/opt"
_PACKAGE = "python/cloudimport"
_WRAPPER = "cloudimport-exec"
#: Of the package: its code, and what it reads. Not its C source, and not what is only for type checkers.
_SUFFIXES = (".py", ".pem")
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Layer:
    """A zip that was made; sizes in bytes."""

    path: Path
    target: Target
    size: int
    plain_size: int
    sha256: str


def build(target: Target, folder: Path, environ: Mapping[str, str], package: Path | None = None) -> Layer:
    """Make the zip for a target in ``folder`` and return it; ``environ`` is that of pip and the compiler.

    ``package`` is the folder of ``cloudimport`` that goes into it: the one that runs. Raises
    ConfigurationError (no interpreter, no headers, no compiler, no source), a CloudImportError of pip, or
    one that says that the zip is too large.
    """
    files = contents(target, package or Path(cloudimport.__file__).parent, environ)
    data = archive.pack(files, executable={_WRAPPER})
    if len(data) > BUDGET:
        raise ConfigurationError(
            f"the layer for {target} has {len(data):,} bytes, its budget is {BUDGET:,}: find what has grown"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(target)
    swap.write_bytes(path, data)
    plain = sum(map(len, files.values()))
    return Layer(path, target, len(data), plain, hashlib.sha256(data).hexdigest())


def file_name(target: Target) -> str:
    """Return what a target's zip is called."""
    python, arch = f"{target.python[0]}.{target.python[1]}", architecture(target)
    return f"cloudimport-layer-{cloudimport.__version__}-python{python}-{arch}.zip"


def architecture(target: Target) -> str:
    """Return what AWS calls a target's machine."""
    return "arm64" if target.machine == "aarch64" else target.machine


def contents(target: Target, package: Path, environ: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of a target's layer by path. Raises what ``build`` does."""
    interpreter = find_interpreter(target)
    if interpreter is None:
        raise ConfigurationError(
            f"the layer for {target} needs a CPython {target.python[0]}.{target.python[1]} on this machine: "
            f"'uv python install {target.python[0]}.{target.python[1]}' gets one"
        )
    sources = {
        f"{_PACKAGE}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in package.rglob("*")
        if path.suffix in _SUFFIXES
    }
    with work_folder("layer") as work:
        return {
            _WRAPPER: (_HERE / _WRAPPER).read_bytes(),
            **sources,
            **_compiled(sources, interpreter),
            **_native(target, interpreter, package, work, environ),
            **_codec(target, work, environ),
            f"{_PACKAGE}/licenses/cloudimport.txt": _beside(package, "../LICENSE"),
        }


def _compiled(sources: Mapping[str, bytes], interpreter: Interpreter) -> dict[str, bytes]:
    """Return the bytecode of all modules, where Python looks for it beside them (PEP 3147)."""
    modules = {f"{_IN_LAMBDA}/{name}": data for name, data in sources.items() if name.endswith(".py")}
    compiled = bytecode.compile_for(interpreter, modules)
    found = {}
    for name, data in compiled.items():
        path = Path(name).relative_to(_IN_LAMBDA)
        found[f"{path.parent}/__pycache__/{path.stem}.{interpreter.cache_tag}.pyc"] = data
    return found


def _native(
    target: Target, interpreter: Interpreter, package: Path, work: Path, environ: Mapping[str, str]
) -> dict[str, bytes]:
    source = _beside(package, "_native.c")
    return {f"{_PACKAGE}/_native.abi3.so": native.build(source, target, interpreter, work, environ)}


def _codec(target: Target, work: Path, environ: Mapping[str, str]) -> dict[str, bytes]:
    extension, licences = codec.get(target, work / "codec", environ)
    files = {f"{_PACKAGE}/format/{name}": data for name, data in extension.items()}
    return files | {f"{_PACKAGE}/licenses/{name}": data for name, data in licences.items()}


def _beside(package: Path, name: str) -> bytes:
    try:
        return (package / name).read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(
            f"{package} has no {name.rpartition('/')[2]}, as in what pip installs: build the layer in a clone"
        ) from None
