"""Downloads by the real pip, from an index of the test's own, and a few from the configured one."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cloudimport.format.requirements import parse_lines
from cloudimport.ids import Pin, Target
from shelf_tools.fetch import Wheel, WheelError, explain, fetch, platforms, tags
from shelf_tools.limits import FETCH_LIMITS
from shelf_tools.origins import Origin
from shelf_tools.process import Finished
from tests.support.wheels import build_wheel

X86 = Target.parse("cp312-manylinux_2_28_x86_64")
ARM = Target.parse("cp312-manylinux_2_28_aarch64")


def _wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any", python: str = "") -> Path:
    """Put a wheel without modules on an index (a folder for each name) and return it."""
    requires = f"Requires-Python: {python}\n" if python else ""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
    return build_wheel(folder / name.replace("_", "-"), name, version, {}, tag=tag, metadata=metadata)


def _sdist(folder: Path, name: str, version: str) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / f"{name}-{version}.tar.gz").write_bytes(b"never opened")


def _environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    """An environment for pip that nothing of the developer's is in."""
    return {
        "PATH": os.defpath,
        "HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "0",
        **settings,
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hashes(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    return {name: hashlib.new(name, data).hexdigest() for name in ("sha256", "sha384", "sha512")}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    status = 0

    def do_GET(self) -> None:
        if self.status:
            self.send_error(self.status)
        else:
            super().do_GET()

    def log_message(self, *args: Any) -> None:
        return


@contextlib.contextmanager
def _served(folder: Path, status: int = 0) -> Iterator[str]:
    """Serve a folder as a simple index (PEP 503) on a free port; ``status`` is the only answer if set."""
    handler = type("Handler", (_Quiet,), {"status": status})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Index:
    """An index of the test's own, and how to fetch from it."""

    def __init__(self, tmp_path: Path, url: str) -> None:
        self.folder = tmp_path / "index"
        self.into = tmp_path / "into"
        self.env = _environment(tmp_path, PIP_INDEX_URL=url)

    def fetch(self, *lines: str, target: Target = X86, **options: Any) -> dict[Pin, Wheel]:
        return fetch(parse_lines(lines), target, self.into, env=self.env, **options)

    def failures(self, *lines: str, target: Target = X86) -> list[str]:
        with pytest.raises(WheelError) as caught:
            self.fetch(*lines, target=target)
        assert str(caught.value) == "\n".join(caught.value.failures)
        return list(caught.value.failures)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[_Index]:
    """An empty index that is served over HTTP."""
    (tmp_path / "index").mkdir()
    with _served(tmp_path / "index") as url:
        yield _Index(tmp_path, url)


def test_wheels_are_fetched_with_their_digests(index: _Index) -> None:
    """Each pin gets its wheel, whatever the spelling of its name and version, and is reported done.

    Where it came from is known.
    """
    one = _wheel(index.folder, "foo_bar", "1.0")
    two = _wheel(index.folder, "baz", "2.0.1+cpu.1")
    done: list[Pin] = []
    found = index.fetch("Foo.Bar==1", f"baz==2.0.1+cpu.1 --hash=sha256:{_sha256(two)}", on_done=done.append)

    def expected(wheel: Path, name: str) -> Wheel:
        page = f"{index.env['PIP_INDEX_URL']}{name}/"
        origin = Origin(page + wheel.name.replace("+", "%2B"), page)
        return Wheel(index.into / wheel.name, wheel.name, _hashes(wheel), wheel.stat().st_size, origin)

    assert found == {
        Pin("foo-bar", "1"): expected(one, "foo-bar"),
        Pin("baz", "2.0.1+cpu.1"): expected(two, "baz"),
    }
    assert sorted(done) == sorted(found)
    assert sorted(path.name for path in index.into.iterdir()) == sorted([one.name, two.name])


def test_the_best_wheel_for_the_target_is_taken(index: _Index) -> None:
    """Of several wheels pip takes the target's own: interpreter, newest C library that it has, machine."""
    for tag in (
        "py3-none-any",
        "cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp312-cp312-manylinux2014_x86_64",
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp312-cp312-manylinux_2_34_x86_64",
        "cp312-cp312-manylinux_2_28_aarch64",
        "cp312-cp312-musllinux_1_2_x86_64",
        "cp313-cp313-manylinux_2_28_x86_64",
    ):
        _wheel(index.folder, "foo", "1", tag)
    targets = {
        "cp312-manylinux_2_28_x86_64": "cp312-cp312-manylinux_2_28_x86_64",
        "cp312-manylinux_2_17_x86_64": "cp312-cp312-manylinux2014_x86_64",
        "cp314-manylinux_2_34_x86_64": "cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp310-manylinux_2_34_x86_64": "py3-none-any",
        "lambda-python3.12-arm64": "cp312-cp312-manylinux_2_28_aarch64",
    }
    for text, tag in targets.items():
        found = index.fetch("foo==1", target=Target.parse(text))
        assert found[Pin("foo", "1")].filename == f"foo-1-{tag}.whl", text


def test_every_failure_is_one_line_and_all_come_at_once(index: _Index) -> None:
    """Unknown package, unknown version, no wheel, wrong interpreter and wrong hash, with what there is."""
    for version in ("1.0", "1.1", "2.0"):
        _wheel(index.folder, "foo", version)
    others = ["cp312-cp312-manylinux_2_28_aarch64", "cp312-cp312-win_amd64"]
    for tag in others:
        _wheel(index.folder, "native", "1", tag)
    _wheel(index.folder, "new", "1", python=">=3.13")
    _sdist(index.folder, "old", "1")
    bad = _wheel(index.folder, "bad", "1")
    found = index.failures(
        "foo==3", "foo2==1", "native==1", "new==1", "old==1", f"bad==1 --hash=sha256:{'0' * 64}", "six==1"
    )
    only = "only a source distribution"
    expected = [
        "foo==3: there is no such version; the newest are 2, 1.1, 1",
        "foo2==1: no package of this name is known to the package index",
        f"native==1: there is no wheel for {X86}; there are wheels for {', '.join(others)}",
        "new==1: needs Python >=3.13, the target has 3.12",
        f"old==1: there is no wheel of this version, {only}: --allow-sdist old builds it in the sandbox",
        f"bad==1: {bad.name} does not have the hash in the list: expected {'0' * 64}, got {_sha256(bad)}",
        "six==1: no package of this name is known to the package index",
    ]
    assert found == [f"requirements:{line}: {said}" for line, said in enumerate(expected, 1)]


def test_what_can_be_had_is_reported_done_although_another_fails(index: _Index) -> None:
    """A failing pin does not take its batch with it."""
    for number in range(12):
        _wheel(index.folder, f"p{number}", "1")
    done: list[Pin] = []
    with pytest.raises(WheelError):
        index.fetch(*(f"p{number}==1" for number in range(13)), on_done=done.append)
    assert sorted(done) == sorted(Pin(f"p{number}", "1") for number in range(12))


def test_another_strong_hash_is_enforced_too(index: _Index) -> None:
    """A list may have sha512 hashes; the wheel's sha256 is recorded all the same."""
    wheel = _wheel(index.folder, "foo", "1")
    digest = hashlib.sha512(wheel.read_bytes()).hexdigest()
    assert index.fetch(f"foo==1 --hash=sha512:{digest}")[Pin("foo", "1")].sha256 == _sha256(wheel)
    assert "does not have the hash" in index.failures(f"foo==1 --hash=sha512:{'0' * 128}")[0]


def test_an_unreachable_index_is_said_with_its_cause(tmp_path: Path) -> None:
    """Nothing listens: each pin's line says so, and no other reason."""
    with _served(tmp_path) as url:
        pass
    index = _Index(tmp_path, url)
    for retries in ("0", "1"):
        index.env["PIP_RETRIES"] = retries
        host = url.split("/")[2]
        said = f"the package index cannot be reached (connection refused): {host}"
        assert index.failures("a==1", "b==1") == [
            f"requirements:1: a==1: {said}",
            f"requirements:2: b==1: {said}",
        ]


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "refuses access (HTTP 401)"), (403, "refuses access (HTTP 403)"), (500, "HTTP 500")],
)
def test_an_index_that_answers_with_an_error_is_said(tmp_path: Path, status: int, said: str) -> None:
    """Refusal and fault of an index are not mistaken for an unknown package."""
    with _served(tmp_path, status) as url:
        assert said in _Index(tmp_path, url).failures("a==1")[0]


def test_a_folder_of_wheels_and_options_of_a_file_are_honoured(tmp_path: Path) -> None:
    """pip's own settings, and index options of the requirements file, say where wheels come from."""
    wheel = _wheel(tmp_path, "foo", "1")
    env = _environment(tmp_path, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheel.parent))
    assert fetch(parse_lines(["foo==1"]), X86, tmp_path / "a", env=env)[Pin("foo", "1")].sha256 == _sha256(
        wheel
    )
    options = ("--no-index", f"--find-links {wheel.parent}")
    found = fetch(parse_lines(["foo==1"]), X86, tmp_path / "b", env=_environment(tmp_path), options=options)
    assert found[Pin("foo", "1")].sha256 == _sha256(wheel)


def test_settings_that_would_change_the_target_are_not_honoured(index: _Index, tmp_path: Path) -> None:
    """A developer's pip settings for another platform, or for source builds, do not reach pip."""
    _wheel(index.folder, "foo", "1")
    index.env |= {"PIP_NO_BINARY": ":all:", "PIP_PLATFORM": "win_amd64", "PIP_DEST": str(tmp_path / "x")}
    assert list(index.fetch("foo==1")) == [Pin("foo", "1")]


def test_a_pip_that_hangs_is_ended(tmp_path: Path) -> None:
    """An index that never answers costs the time limit, not for ever."""
    import socket

    said = "a==1: took longer than 3 s while it was fetched (--fetch-wall-time)"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = _Index(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(WheelError, match=re.escape(said)):
            index.fetch("a==1", limits=replace(FETCH_LIMITS, wall_seconds=3))


def test_platform_tags_have_their_old_names_too() -> None:
    """PEP 600's tags down to the oldest, each with the name it had before."""
    found = platforms(Target.parse("cp312-manylinux_2_17_x86_64"))
    assert found[:3] == ["manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_16_x86_64"]
    assert found[-3:] == ["manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    assert platforms(Target.parse("cp312-manylinux_2_17_aarch64")) == [
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
        "linux_aarch64",
    ]


def test_tags_are_those_of_the_target() -> None:
    """abi3 of older interpreters and pure wheels are accepted, musl, newer glibc and debug builds are not."""
    known = {str(tag) for tag in tags(X86)}
    assert {"cp312-cp312-manylinux_2_28_x86_64", "cp37-abi3-manylinux2010_x86_64", "py3-none-any"} <= known
    assert {"cp312-none-any", "py36-none-any", "cp312-none-manylinux1_x86_64"} <= known
    assert not {tag for tag in known if "musl" in tag or "2_34" in tag or "aarch64" in tag or "cp312d" in tag}


@pytest.mark.network
@pytest.mark.parametrize(
    ("target", "lines", "tag"),
    [
        (
            "cp312-manylinux_2_28_x86_64",
            ["numpy==1.26.4", "requests==2.32.3"],
            "cp312-cp312-manylinux_2_17_x86_64",
        ),
        ("cp310-manylinux_2_17_x86_64", ["numpy==1.26.4"], "cp310-cp310-manylinux_2_17_x86_64"),
        ("lambda-python3.12-arm64", ["numpy==1.26.4"], "cp312-cp312-manylinux_2_17_aarch64"),
    ],
)
def test_real_wheels_come_from_the_configured_index(
    tmp_path: Path, target: str, lines: list[str], tag: str
) -> None:
    """What the user's pip is configured for is used, for this and for other interpreters and machines."""
    found = fetch(parse_lines(lines), Target.parse(target), tmp_path, env=os.environ)
    assert found[Pin("numpy", "1.26.4")].filename.startswith(f"numpy-1.26.4-{tag}")
    assert len(found) == len(lines)


def test_metadata_that_pip_refuses_is_said_so(index: _Index) -> None:
    """A wheel that pip finds and refuses is not said to be absent."""
    requires = "Requires-Dist: x[/y]\n"
    build_wheel(
        index.folder / "odd",
        "odd",
        "1",
        {},
        metadata=f"Metadata-Version: 2.1\nName: odd\nVersion: 1\n{requires}",
    )
    (said,) = index.failures("odd==1")
    assert "metadata is not valid" in said or "pip failed" in said


@pytest.mark.timeout(60)
def test_what_pip_quotes_of_a_package_takes_no_time_to_read() -> None:
    """A line of two million characters, which could be the start of a file's name, is read in seconds."""
    (one,) = parse_lines(["demo==1.0"], "requirements.txt")
    for line in (b"a" * 2_000_000, b"total=0," * 250_000, b"a.whl" * 400_000):
        said = explain(one, Target.parse("cp311-manylinux_2_34_x86_64"), Finished(1, line, b"ERROR: no"))
        assert said == "pip failed: ERROR: no"


def test_pip_that_needs_too_much_memory_is_said() -> None:
    """pip reads a wheel's metadata outside of any sandbox: it ends at its limit, in one line."""
    (one,) = parse_lines(["demo==1.0"], "requirements.txt")
    finished = Finished(2, b"", b"Traceback\nMemoryError: Unable to allocate output buffer.\n")
    said = explain(one, Target.parse("cp311-manylinux_2_34_x86_64"), finished)
    assert said == "used more than 1 GiB of memory while it was fetched (--fetch-memory)"
