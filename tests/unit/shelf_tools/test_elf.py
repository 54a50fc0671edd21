"""Dynamic sections of ELF files, whole and damaged."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudimport.format.content import Native
from shelf_tools.elf import needed_versions, read_elf

NEEDED, STRTAB, SONAME, RPATH, STRSZ, RUNPATH = 1, 5, 14, 15, 10, 29
X86_64, AARCH64 = 62, 183


def elf(entries: list[tuple[int, str]], machine: int = X86_64) -> bytes:
    """A little-endian 64-bit shared object with a dynamic segment and nothing else."""
    strings, tags = b"\0", []
    for tag, text in entries:
        tags.append((tag, len(strings)))
        strings += text.encode() + b"\0"
    dynamic_at, strings_at = 64 + 2 * 56, 64 + 2 * 56 + (len(tags) + 3) * 16
    tags += [(STRTAB, strings_at), (STRSZ, len(strings)), (0, 0)]
    size = strings_at + len(strings)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    header += struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 4096)
    header += struct.pack(
        "<IIQQQQQQ", 2, 6, dynamic_at, dynamic_at, dynamic_at, len(tags) * 16, len(tags) * 16, 8
    )
    return header + b"".join(struct.pack("<QQ", *tag) for tag in tags) + strings


WHOLE = elf(
    [(NEEDED, "liba.so"), (NEEDED, "libc.so.6"), (SONAME, "libx.so.1"), (RUNPATH, "$ORIGIN/../x.libs::/opt")]
)


def _write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "x.so"
    path.write_bytes(data)
    return path


def test_a_dynamic_section_is_read(tmp_path: Path) -> None:
    """Needed libraries in order, SONAME, and the elements of the run path."""
    found = read_elf(_write(tmp_path, WHOLE))
    assert found.native == Native(("liba.so", "libc.so.6"), "libx.so.1", ("$ORIGIN/../x.libs", "/opt"))
    assert (found.machine, found.damage, found.musl) == ("x86_64", "", False)


def test_runpath_wins_over_rpath(tmp_path: Path) -> None:
    """DT_RPATH counts where there is no DT_RUNPATH, as for ld.so."""
    both = read_elf(_write(tmp_path, elf([(RPATH, "/a"), (RUNPATH, "/b")])))
    only = read_elf(_write(tmp_path, elf([(RPATH, "/a")])))
    assert both.native is not None
    assert both.native.runpath == ("/b",)
    assert only.native is not None
    assert only.native.runpath == ("/a",)


def test_the_machine_is_told_as_targets_tell_it(tmp_path: Path) -> None:
    """AArch64 has the name that a target has; other machines have ELF's."""
    assert read_elf(_write(tmp_path, elf([], AARCH64))).machine == "aarch64"
    assert read_elf(_write(tmp_path, elf([], 21))).machine == "ppc64"


def test_a_library_for_musl_is_known_by_what_it_needs(tmp_path: Path) -> None:
    """musl's C library has another name than glibc's."""
    assert read_elf(_write(tmp_path, elf([(NEEDED, "libc.musl-x86_64.so.1")]))).musl


def test_an_object_without_a_dynamic_section_is_no_damage(tmp_path: Path) -> None:
    """An object file is simply not linked."""
    data = bytearray(WHOLE)
    data[56:58] = b"\0\0"
    assert read_elf(_write(tmp_path, bytes(data))).native is None


@pytest.mark.parametrize("size", [4, 16, 63, 64, 100, 176, 200])
def test_a_cut_file_is_damage_and_no_crash(tmp_path: Path, size: int) -> None:
    """A file that ends too early gives no dynamic section and says why."""
    found = read_elf(_write(tmp_path, WHOLE[:size]))
    assert found.native is None
    assert found.damage


def test_section_headers_are_not_looked_at(tmp_path: Path) -> None:
    """A section table that lies, of endless length, changes nothing."""
    data = bytearray(WHOLE)
    data[40:48] = struct.pack("<Q", 64)
    data[58:64] = struct.pack("<HHH", 0, 0xFFFF, 0xFFFF)
    assert read_elf(_write(tmp_path, bytes(data))) == read_elf(_write(tmp_path, WHOLE))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(4, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_no_flipped_byte_makes_it_crash(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    """Whatever bytes are changed, something is returned whose names can stand in canonical JSON."""
    data = bytearray(WHOLE)
    for at, value in flips:
        data[at] = value
    found = read_elf(_write(tmp_path_factory.getbasetemp(), bytes(data)))
    for name in (*found.native.needed, found.native.soname, *found.native.runpath) if found.native else ():
        name.encode()


def test_a_real_library_agrees_with_readelf() -> None:
    """An extension module of this interpreter has the names that binutils finds."""
    readelf = shutil.which("readelf")
    modules = sorted(Path(sys.base_prefix).glob("lib/python3*/lib-dynload/_ssl*.so"))
    if readelf is None or not modules:
        pytest.skip("no readelf or no extension module to compare")
    said = subprocess.run(
        [readelf, "-d", modules[0]], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    needed = [line.split("[")[1].rstrip("]") for line in said.splitlines() if "(NEEDED)" in line]
    found = read_elf(modules[0]).native
    assert found is not None
    assert list(found.needed) == needed


def test_needed_versions_agree_with_readelf() -> None:
    """The versions of symbols that a library needs are those that binutils finds."""
    readelf = shutil.which("readelf")
    modules = sorted(Path(sys.base_prefix).glob("lib/python3*/lib-dynload/*.so"))
    if readelf is None or not modules:
        pytest.skip("no readelf or no extension module to compare")
    for module in modules:
        command = [readelf, "-V", "-W", module]
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        needs = said.partition("Version needs section")[2]
        names = {line.split("Name: ")[1].split()[0] for line in needs.splitlines() if "Name: " in line}
        assert set(needed_versions(module)) == names


def test_needed_versions_of_damaged_files(tmp_path: Path) -> None:
    """Whatever bytes of a real library are cut off or changed, it is a ValueError or a list of names."""
    modules = sorted(
        Path(sys.base_prefix).glob("lib/python3*/lib-dynload/*.so"), key=lambda p: p.stat().st_size
    )
    data = modules[0].read_bytes() if modules else WHOLE
    whole = needed_versions(_write(tmp_path, data))
    refused = 0
    for at in range(4, 1200, 7):
        for changed in (data[:at] + b"\xff\xff" + data[at + 2 :], data[: at * 8]):
            try:
                assert all(name.isascii() for name in needed_versions(_write(tmp_path, changed)))
            except ValueError:
                refused += 1
    assert refused > 20
    assert whole == needed_versions(_write(tmp_path, data))


def test_no_dynamic_section_needs_no_versions(tmp_path: Path) -> None:
    """A file without versions needs none."""
    assert needed_versions(_write(tmp_path, WHOLE)) == ()
