"""Parts of the Lambda-like sandbox by themselves: its Runtime API, and what is at /var/runtime."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from shelf_tools import slots
from shelf_tools.lambdabox.runtime import laid_out
from shelf_tools.lambdabox.runtime_api import RuntimeApi


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 1_0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_size_that_is_none_ends_the_connection(framing: bytes) -> None:
    """A size of -1 is not "all that comes": a sandbox could fill the memory of who watches it."""
    api = RuntimeApi()
    try:
        host, port = api.address.split(":")
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(b"POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: x\r\n" + framing)
            assert connection.recv(1) == b""  # and nothing was waited for
        assert api.wait_ready(0.01) is not None
    finally:
        api.close()


def test_var_runtime_is_made_once(tmp_path: Path) -> None:
    """Sandboxes that run see it: what is there is not written to again, other contents are another folder."""
    first = laid_out(tmp_path, "3.11", "a = 1\n")
    stats = {path: path.stat() for path in [first, *first.rglob("*")]}
    assert (first / "bootstrap_prelude.py").read_text() == "a = 1\n"
    assert laid_out(tmp_path, "3.11", "a = 1\n") == first
    assert {path: path.stat() for path in stats} == stats
    assert laid_out(tmp_path, "3.11", "a = 2\n") != first
    assert laid_out(tmp_path, "3.12", "a = 1\n") != first


def test_a_umask_keeps_no_sandbox_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, sandboxes have uids of their own, which read /var/runtime and pass through their slot."""
    monkeypatch.setattr(slots, "FOLDER", tmp_path / "slots")
    mask = os.umask(0o077)
    try:
        folder = laid_out(tmp_path / "runtime", "3.11", "a = 1\n")
        with slots.take() as slot:
            passed = {path: _mode(path) for path in (slot.staging, slot.staging.parent)}
    finally:
        os.umask(mask)
    assert set(passed.values()) == {0o711}
    executable = {folder, folder / "etc", folder / "bootstrap"}
    modes = {path: _mode(path) for path in (folder, *folder.rglob("*")) if path.name != ".complete"}
    assert len(modes) == 8
    assert modes == {path: 0o755 if path in executable else 0o644 for path in modes}


def test_waiting_for_a_slot_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not given one in time is told so."""
    monkeypatch.setattr(slots, "FOLDER", tmp_path)
    monkeypatch.setattr(slots, "COUNT", 1)
    with slots.take(), pytest.raises(ConfigurationError, match="all 1 sandbox uids are in use"):
        slots.take(0.01).__enter__()


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777
