"""The clock that stands still while the process is suspended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from cloudimport.sources import clock as clock_module
from cloudimport.sources import wire
from cloudimport.sources.clock import Clock
from tests.support.children import REPOSITORY


class Time:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Time:
    """The time that the clock sees."""
    made = Time()
    monkeypatch.setattr(clock_module, "time", made)
    return made


def test_a_wait_that_took_too_long_does_not_count(hand: Time) -> None:
    """What went beyond the timeout was no waiting; a wait within it, or a little later, was."""
    clock = Clock()
    began = clock.now()
    hand.now += 4.5
    assert clock.waited(100.0, 4.0) == 0.0
    assert clock.now() - began == 4.5
    hand.now += 50.0
    assert clock.waited(104.5, 4.0) == 50.0
    assert clock.now() - began == 4.5


def test_threads_that_saw_the_same_suspension(hand: Time) -> None:
    """It counts once, and what another one saw of it before or after does too."""
    clock = Clock()
    hand.now = 200.0
    clock.waited(110.0, 1.0)
    clock.waited(105.0, 1.0)  # its beginning is in doubt: the later one is taken
    assert clock.now() == 200.0 - 90.0
    hand.now = 300.0
    clock.waited(150.0, 1.0)
    assert clock.now() == 110.0


def test_it_never_goes_back() -> None:
    """Under threads that all report, each sees a time that grows."""
    clock = Clock()
    wrong: list[float] = []

    def look() -> None:
        last = clock.now()
        for _ in range(2000):
            clock.waited(time.monotonic() - 2.0, 0.5)
            now = clock.now()
            if now < last - 2.1:
                wrong.append(now - last)
            last = now

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_stopped_process(tmp_path: Path) -> None:
    """A read whose process is stopped for longer than its deadline goes on when it is continued: an answer
    that came meanwhile is taken.
    """
    code = """
        import sys
        from cloudimport.sources.http import HttpClient, Limits
        from cloudimport.sources.origin import parse_url
        from cloudimport.sources.proxies import Proxies
        client = HttpClient(Limits(2.0, 2.0, 3.0), Proxies({}, {}))
        origin, path = parse_url(sys.argv[1])
        print(client.request("GET", origin, path, {}).body)
        """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), url], cwd=REPOSITORY, stdout=subprocess.PIPE
        ) as process:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(4.5)
                client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                os.kill(process.pid, signal.SIGCONT)
                assert process.communicate(timeout=30)[0] == b"b'ok'\n"


def test_a_process_that_is_stopped_where_it_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of an exchange that took longer than it could does not count, wherever it went."""
    made = Clock()
    monkeypatch.setattr(wire, "clock", made)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = wire.Connection(ours, 0.2, 0.2)

        def stopped(data: bytes, host: str) -> None:
            theirs.close()
            time.sleep(1.5)
            raise wire.StaleError("end of file")

        monkeypatch.setattr(connection, "_send_and_wait", stopped)
        began = made.now()
        with pytest.raises(wire.StaleError):
            connection.exchange("GET", "h", "/", {}, wire.WHOLE)
        assert made.now() - began < 0.5
