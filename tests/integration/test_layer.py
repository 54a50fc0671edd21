"""The layer's zip: what is in it, the same bytes every time, for either architecture, and its size."""

from __future__ import annotations

import importlib.util
import marshal
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import CodeType

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

import lambda_layer.layer
from cloudimport.errors import ConfigurationError
from lambda_layer.__main__ import main
from lambda_layer.commands.build import targets
from lambda_layer.layer import ARCHITECTURES, BUDGET, PYTHONS, Layer, build, file_name
from tests.support.children import REPOSITORY
from tests.support.layers import built, layer_target
from tests.support.runtimes import find_python, running_version
from tests.support.shelfcommand import publisher_environment

#: As ELF has them (ELF gABI, e_machine).
_MACHINES = {"x86_64": "EM_X86_64", "arm64": "EM_AARCH64"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the zips of this module are made."""
    return tmp_path_factory.mktemp("layers")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def layer(request: pytest.FixtureRequest, folder: Path) -> Layer:
    """The layer for the running Python, of both architectures."""
    return built(running_version(), folder, request.param)


def _files(layer: Layer) -> dict[str, bytes]:
    with zipfile.ZipFile(layer.path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.mark.network
def test_same_bytes_again(layer: Layer, tmp_path: Path) -> None:
    """Another process, folder, copy of the sources with other dates, umask, zone, seed: the same digest."""
    package = tmp_path / "elsewhere" / "cloudimport"
    shutil.copytree(REPOSITORY / "cloudimport", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(REPOSITORY / "LICENSE", package.parent)
    for path in package.rglob("*"):
        os.utime(path, (1, 1))
    program = (
        "import os, sys; os.umask(0o077); from pathlib import Path; from cloudimport.ids import Target\n"
        "from lambda_layer.layer import build\n"
        f"target = Target.parse({str(layer.target)!r})\n"
        "print(build(target, Path('out'), os.environ, Path(sys.argv[1])).sha256)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(package)],
        env=publisher_environment({"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "LC_ALL": "C"}),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert ran.stdout.strip() == layer.sha256, ran.stderr


@pytest.mark.network
def test_what_is_in_it(layer: Layer) -> None:
    """The wrapper, the package with bytecode beside each module, two extension modules, licences: no more."""
    files = _files(layer)
    tracked = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "cloudimport"], capture_output=True, text=True, check=True
    )
    sources = {f"python/{name}" for name in tracked.stdout.split()} - {
        "python/cloudimport/_native.c",
        "python/cloudimport/py.typed",
    }
    tag = f"cpython-{layer.target.python[0]}{layer.target.python[1]}"
    bytecode = {
        f"{Path(name).parent}/__pycache__/{Path(name).stem}.{tag}.pyc"
        for name in sources
        if name.endswith(".py")
    }
    others = {
        "cloudimport-exec",
        "python/cloudimport/_native.abi3.so",
        f"python/cloudimport/format/_zstd{layer.target.extension_suffixes[0]}",
        "python/cloudimport/licenses/cloudimport.txt",
        "python/cloudimport/licenses/backports.zstd-LICENSE.txt",
        "python/cloudimport/licenses/backports.zstd-LICENSE_zstd.txt",
    }
    assert files.keys() == sources | bytecode | others
    with zipfile.ZipFile(layer.path) as opened:
        modes = {entry.filename: entry.external_attr >> 16 for entry in opened.infolist()}
        assert opened.namelist() == sorted(files)
    assert modes.pop("cloudimport-exec") == 0o100755
    assert set(modes.values()) == {0o100644}


@pytest.mark.network
def test_bytecode_is_that_of_the_target(layer: Layer) -> None:
    """By hash and unchecked (PEP 552), of the sources beside it, with the paths that Lambda has."""
    files = _files(layer)
    compiled = {name: data for name, data in files.items() if name.endswith(".pyc")}
    assert len(compiled) > 50
    for name, data in compiled.items():
        folder, _, stem = name.partition("/__pycache__/")
        source = f"{folder}/{stem.partition('.')[0]}.py"
        assert data[:8] == importlib.util.MAGIC_NUMBER + b"\1\0\0\0"
        assert data[8:16] == importlib.util.source_hash(files[source])
        code = marshal.loads(data[16:])
        assert isinstance(code, CodeType)
        assert code.co_filename == f"/opt/{source}"


@pytest.mark.network
def test_nothing_of_this_machine_is_in_it(layer: Layer) -> None:
    """No path of the build, whose bytes would differ elsewhere, and which is nobody's business."""
    here = [
        str(REPOSITORY),
        str(Path.home()),
        sys.base_prefix,
        str(layer.path.parent),
        "/tmp/cloudimport-layer",
    ]
    for name, data in _files(layer).items():
        assert [path for path in here if len(path) > 5 and path.encode() in data] == [], name


@pytest.mark.network
def test_extension_modules_are_for_the_architecture(layer: Layer) -> None:
    """And need no newer C library than the target's."""
    for name, data in _files(layer).items():
        if name.endswith(".so"):
            elf = ELFFile(__import__("io").BytesIO(data))
            assert elf.header.e_machine == _MACHINES[lambda_layer.layer.architecture(layer.target)]
            assert _glibc(elf) <= layer.target.glibc, name


def _glibc(elf: ELFFile) -> tuple[int, ...]:
    names = [
        version.name
        for section in elf.iter_sections()
        if isinstance(section, GNUVerNeedSection)
        for _, versions in section.iter_versions()
        for version in versions
    ]
    return max(tuple(map(int, name[6:].split("."))) for name in names if re.fullmatch(r"GLIBC_[\d.]+", name))


@pytest.mark.network
def test_budget(layer: Layer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of 3 MB; a build of more is an error, and leaves no zip."""
    assert layer.size == layer.path.stat().st_size < BUDGET / 2 < BUDGET == 3_000_000
    monkeypatch.setattr(lambda_layer.layer, "BUDGET", layer.size - 1)
    monkeypatch.setattr(lambda_layer.layer, "contents", lambda *_: _files(layer))
    with pytest.raises(ConfigurationError, match=f"has {layer.size:,} bytes, its budget is"):
        build(layer.target, tmp_path, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.network
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("version", PYTHONS)
def test_all_of_them(version: str, arch: str, folder: Path) -> None:
    """Each Python and architecture has its zip, in the budget, with bytecode of its own."""
    made = built(version, folder, arch)
    assert made.size < BUDGET / 2
    tags = {name.rpartition(".pyc")[0].rpartition(".")[2] for name in _files(made) if name.endswith(".pyc")}
    assert tags == {f"cpython-{version.replace('.', '')}"}


@pytest.mark.network
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where the zip is, how large, and its digest."""
    version = running_version()
    assert main(["build", "--python", version, "--arch", "arm64", "-o", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    path = tmp_path / file_name(layer_target(version, "arm64"))
    assert said.startswith(f"{path}: {path.stat().st_size:,} bytes (")
    assert re.search(r"sha256 [0-9a-f]{64}$", said.strip())


def test_all_stands_for_each() -> None:
    """``all``, and each Python and architecture by itself."""
    assert len(targets("all", "all")) == 8
    assert [str(one) for one in targets("3.12", "all")] == [
        "cp312-manylinux_2_34_aarch64",
        "cp312-manylinux_2_34_x86_64",
    ]


def test_no_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Python that this machine does not have is named, with what gets one."""
    monkeypatch.setattr(lambda_layer.layer, "find_interpreter", lambda _: None)
    assert main(["build", "--python", "3.12", "--arch", "x86_64", "-o", str(tmp_path)]) == 1
    assert "needs a CPython 3.12 on this machine: 'uv python install 3.12'" in capsys.readouterr().err


def test_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--available`` leaves such a Python out, and says which; nothing at all is an error."""
    monkeypatch.setattr("lambda_layer.commands.build.find_interpreter", lambda _: None)
    assert main(["build", "--python", "3.12", "--available", "-o", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"left out: {file_name(layer_target('3.12', 'arm64'))} (there is no CPython" in said
    assert list(tmp_path.iterdir()) == []


def test_no_source_of_the_helper(tmp_path: Path) -> None:
    """What pip installs has no C source: that is said, with the remedy."""
    assert find_python(running_version())
    (tmp_path / "cloudimport").mkdir()
    with pytest.raises(ConfigurationError, match=r"has no _native\.c.*build the layer in a clone"):
        build(layer_target(running_version()), tmp_path, publisher_environment(), tmp_path / "cloudimport")
