"""Pins for a target: markers, contradictions, and files as pip-compile and uv really write them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker, default_environment

from cloudimport.errors import ConfigurationError
from cloudimport.format.requirements import parse_lines
from cloudimport.ids import Target
from shelf_tools.pins import for_target, holds, marker_environment, read_list, read_options, read_pins, wanted

X86 = Target.parse("cp312-manylinux_2_28_x86_64")
ARM = Target.parse("lambda-python3.10-arm64")


def _lines(*lines: str, target: Target = X86) -> list[str]:
    return [str(one.pin) for one in for_target(parse_lines(lines), target)]


def test_all_errors_of_a_file_come_at_once(tmp_path: Path) -> None:
    """Errors of the reader, of markers and of includes stand together, each with its line."""
    (tmp_path / "b.txt").write_text("c==1 ; nonsense == '1'\n")
    file = tmp_path / "r.txt"
    file.write_text("a>=1\nb==1 ; python_version <\n-r b.txt\n")
    with pytest.raises(ConfigurationError) as caught:
        read_pins(file)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{file}:1", f"{file}:2", f"{tmp_path / 'b.txt'}:1"]
    assert "the marker 'python_version <' is not valid" in lines[1]


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(ConfigurationError, match=r"gone\.txt: cannot be read: No such file"):
        read_pins(tmp_path / "gone.txt")


def test_a_file_of_powershell_is_read(tmp_path: Path) -> None:
    """UTF-16 with a byte order mark and CRLF, as ``pip freeze > file`` gives there, is read."""
    (tmp_path / "r.txt").write_bytes("\ufeffidna==3.10\r\n".encode("utf-16-le"))
    assert [str(one.pin) for one in read_pins(tmp_path / "r.txt")] == ["idna==3.10"]


def test_index_options_are_read_for_the_download(tmp_path: Path) -> None:
    """Where a file says packages come from is not lost."""
    (tmp_path / "r.txt").write_text("--extra-index-url https://example.invalid/s\n-f wheels\nidna==3.10\n")
    options = ("--extra-index-url https://example.invalid/s", f"-f {tmp_path}/wheels")
    assert read_options(tmp_path / "r.txt") == options


@pytest.mark.parametrize(
    ("marker", "on_x86", "on_arm"),
    [
        ("python_version < '3.11'", False, True),
        ("python_version >= '3.9'", True, True),
        ("python_full_version < '3.12.4'", False, True),
        ("platform_machine == 'aarch64'", False, True),
        ("sys_platform == 'linux' and os_name == 'posix'", True, True),
        ("sys_platform == 'win32' or platform_system == 'Darwin'", False, False),
        ("implementation_name == 'cpython' and platform_python_implementation != 'PyPy'", True, True),
        ("extra == 'x'", False, False),
        ("'linux' in sys_platform", True, True),
    ],
)
def test_markers_are_those_of_the_target(marker: str, on_x86: bool, on_arm: bool) -> None:
    """A marker is decided for the target, not for the machine that asks."""
    assert (holds(marker, X86), holds(marker, ARM)) == (on_x86, on_arm)


@pytest.mark.parametrize("marker", ["platform_release >= '5'", "platform_version == 'x'"])
def test_a_marker_on_the_kernel_does_not_hold(marker: str) -> None:
    """What a target does not say is absent, whatever the curator's own kernel."""
    try:
        assert not holds(marker, X86)
    except ConfigurationError as said:  # older packaging compares no empty version
        pytest.skip(str(said))


def test_a_marker_that_cannot_be_decided_is_an_error() -> None:
    """A comparison that PEP 508 does not define is an error of ours, with the line and the pin."""
    with pytest.raises(ConfigurationError, match=r"requirements:1: a==1: the marker .* cannot be decided"):
        _lines("a==1 ; os_name ~= 'posix'")


def test_the_environment_has_every_marker_of_packaging() -> None:
    """No marker variable is left to be filled from the curator's own interpreter."""
    assert set(marker_environment(X86)) == set(default_environment())
    assert Marker("python_version == '3.12'").evaluate(dict(marker_environment(X86)))


def test_markers_choose_between_versions_of_a_name() -> None:
    """Of two versions with markers that exclude each other, the target's is taken."""
    lines = ("numpy==1.26.4 ; python_version < '3.12'", "numpy==2.0 ; python_version >= '3.12'")
    assert _lines(*lines) == ["numpy==2"]
    assert _lines(*lines, target=ARM) == ["numpy==1.26.4"]


def test_two_versions_for_one_target_are_an_error_with_both_lines() -> None:
    """Markers that overlap on the target are a contradiction, each one named."""
    lines = ("a==1 ; python_version > '3'", "a==2", "b==1 ; os_name == 'posix'", "b==2 ; os_name != 'nt'")
    with pytest.raises(ConfigurationError) as caught:
        _lines(*lines)
    text = str(caught.value).splitlines()
    assert text[0].startswith("requirements:2: a==2 contradicts a==1 at requirements:1 for cp312-")
    assert text[1].startswith("requirements:4: b==2 contradicts b==1 at requirements:3")


def test_lines_of_one_pin_are_merged() -> None:
    """Extras are joined and hashes are those that both lines allow."""
    first, second, third = ("--hash=sha256:" + letter * 64 for letter in "abc")
    found = for_target(parse_lines([f"a[x]==1 {first} {second}", f"A[y]==1.0 {second} {third}"]), X86)
    assert [(one.extras, one.hashes) for one in found] == [(("x", "y"), (f"sha256:{'b' * 64}",))]
    with pytest.raises(ConfigurationError, match="other hashes"):
        for_target(parse_lines([f"a==1 {first}", f"a==1 {third}"]), X86)


@pytest.mark.network
def test_a_file_that_a_real_tool_wrote_is_read(tmp_path: Path) -> None:
    """What uv writes today, with hashes, is read in full."""
    (tmp_path / "r.in").write_text("requests[socks]==2.32.3\ncolorama==0.4.6 ; sys_platform == 'win32'\n")
    argv = [sys.executable, "-m", "uv", "pip", "compile", "-q", "--generate-hashes", "-o", "r.txt", "r.in"]
    certificates = {"UV_SYSTEM_CERTS": "true", "UV_NATIVE_TLS": "true"}  # newer and older uv
    env = {**os.environ, **certificates}
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, timeout=120, check=False, env=env)
    assert done.returncode == 0, done.stderr
    found = {one.pin.name: one for one in read_pins(tmp_path / "r.txt")}
    assert found["requests"].pin.version == "2.32.3"
    assert {"certifi", "idna", "urllib3", "pysocks"} <= set(found)
    assert all(one.hashes for one in found.values())


def test_constraints_of_a_file_are_kept_to(tmp_path: Path) -> None:
    """A pin that a ``-c`` file does not allow is an error that names both lines, on the targets it is for."""
    file, limits, inner = (tmp_path / name for name in ("r.txt", "limits.txt", "inner.txt"))
    file.write_text("-c limits.txt\na==1\nb==2\nc==3\n")
    limits.write_text("-r inner.txt\n--extra-index-url https://example.invalid\na>=2  # newer\nunlisted<1\n")
    inner.write_text("b==2.0 --hash=sha256:0\nc<3 ; python_version < '3.11'\n")
    listed = read_list(file)
    assert listed.constraint_files == (str(limits),)
    for target, wrong in ((X86, ["a==1"]), (ARM, ["c==3", "a==1"])):
        with pytest.raises(ConfigurationError) as caught:
            wanted(listed, target)
        lines = str(caught.value).splitlines()
        assert [line.split(": ")[1].split(" is ")[0] for line in lines] == wrong
    assert f"{file}:2: a==1 is not allowed by a>=2 at {limits}:3" in str(caught.value)
    limits.write_text("a>=1\n")
    assert [str(one.pin) for one in wanted(read_list(file), ARM)] == ["a==1", "b==2", "c==3"]


def test_constraints_that_cannot_be_read_are_errors(tmp_path: Path) -> None:
    """A file that is not there, and lines that are no constraints, stand with the errors of the list."""
    file = tmp_path / "r.txt"
    file.write_text("-c gone.txt\n-c limits.txt\na>1\n")
    (tmp_path / "limits.txt").write_text("a[x]<2\nb @ https://example.invalid/b.whl\nc 1\n-c limits.txt\n")
    with pytest.raises(ConfigurationError) as caught:
        read_list(file)
    said = [line.split(": ")[0].removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]
    assert said == ["r.txt:3", "gone.txt", "limits.txt:1", "limits.txt:2", "limits.txt:3"]
