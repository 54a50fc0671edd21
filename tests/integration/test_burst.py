"""A burst: many requests at once to ``shelf serve`` with an empty cache, then many to warm sandboxes."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cloudimport.format import keys
from tests.support.faulty import FaultyServer
from tests.support.installed import publish_installed
from tests.support.serving import Said, mounts_of, serving, wait_until_gone
from tests.support.shelves import MadeShelf, write_tree

#: What is published and imported: a web client and what it needs; and what has much native code.
SMALL = (
    "requests urllib3 idna certifi charset-normalizer pyyaml markupsafe jinja2",
    "requests, yaml, jinja2",
)
NATIVE = ("numpy", "numpy")
HANDLER = """
import time
began = time.monotonic()
import {imports}
took = time.monotonic() - began
import cloudimport, os, urllib.request

def f(event):
    if event:
        urllib.request.urlopen(event, timeout=300).read()
    tmp = os.statvfs("/tmp")
    used = (tmp.f_blocks - tmp.f_bfree) * tmp.f_frsize
    return {{"took": took, "tmp": used, "stats": cloudimport.stats()}}
"""


class Gate:
    """A page that answers when it was asked for by ``count`` clients at once."""

    def __init__(self, count: int) -> None:
        barrier = threading.Barrier(count)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                barrier.wait(300)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.request_queue_size = 128
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def all_at_once(count: int, ask: Callable[[int], Said]) -> list[tuple[Said, float]]:
    """Ask ``count`` times at once; answers, and seconds of each."""

    def timed(number: int) -> tuple[Said, float]:
        began = time.monotonic()
        return ask(number), time.monotonic() - began

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(timed, range(count)))


def burst(
    folder: Path, count: int, warm: int, end: signal.Signals, what: tuple[str, str] = SMALL
) -> dict[str, Any]:
    """Run a burst; assert what must hold, and return figures."""
    (folder / "work").mkdir()
    shelf = MadeShelf(folder / "work")
    built = publish_installed(shelf, *what[0].split())
    shelf.environment()
    functions = write_tree(folder / "f", {"burst/f.py": HANDLER.format(imports=what[1])})
    (functions / "burst" / "cloudimport.lock").write_bytes(shelf.lock.read_bytes())
    (folder / "temporary").mkdir()
    with FaultyServer(Path(shelf.url)) as store:
        env = {"CLOUDIMPORT_SHELF": "s3://bucket", "AWS_ENDPOINT_URL_S3": store.endpoint}
        env |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
        env["TMPDIR"] = str(folder / "temporary")
        options = ("--timeout", "300", "--concurrency", str(count))
        with serving(functions, folder / "cache", *options, env=env) as served:
            gate, began = Gate(count), time.monotonic()
            answers = all_at_once(count, lambda _: served.run("burst", gate.url))
            took = time.monotonic() - began
            assert [said.status for said, _ in answers] == [200] * count, answers[0][0].text
            instances = served.instances("burst")
            # All ran at once, so each had a sandbox of its own; the store saw none of them.
            assert len(instances) == count
            assert [said.value["stats"] for said, _ in answers if said.value["stats"]["requests"]] == []
            packs = [pack for one in built.values() for pack in one.layout.packs]
            cold = len(store.requests)
            # The index, each pack in pieces of 16 MiB, and what is yanked.
            assert cold == 2 + sum(-(-pack.size // (16 << 20)) for pack in packs)
            assert served.status()["tier"]["objects"] == len(packs) + 1
            # Nothing comes twice, not even a part.
            tier = [path for path in (folder / "cache" / "serve" / "tier").rglob("*") if path.is_file()]
            known = Path(shelf.url) / keys.STATUS
            assert served.status()["tier"]["bytes"] == sum(path.stat().st_size for path in (*tier, known))
            began = time.monotonic()
            with ThreadPoolExecutor(8) as pool:
                again = list(pool.map(lambda _: served.run("burst"), range(warm)))
            warm_took = time.monotonic() - began
            assert [said.status for said in again] == [200] * warm
            assert len(store.requests) == cold
            status = served.status()
            assert status["made"] == count
            assert status["functions"]["burst"]["errors"] == 0
            running = served.processes()
            assert len(running) > count * 3
            instances = served.instances("burst")
            figures = {
                "sandboxes": count,
                "seconds": round(took, 2),
                "first_init": min(one["init_seconds"] for one in instances),
                "median_init": statistics.median(one["init_seconds"] for one in instances),
                "median_import": statistics.median(said.value["took"] for said, _ in answers),
                "requests": cold,
                "bytes": status["tier"]["bytes"],
                "mb_each": round(statistics.median(one["memory_bytes"] for one in instances) / 1e6, 1),
                "mb_tmp_each": round(statistics.median(said.value["tmp"] for said, _ in answers) / 1e6, 1),
                "bytes_each_took": answers[0][0].value["stats"]["bytes_shared"],
                "server_mb": _resident(served.process.pid),
                "warm": warm,
                "warm_seconds": round(warm_took, 2),
                "ms_each_of_8": round(warm_took / warm * 8 * 1000, 2),
            }
            served.stop(end)
            assert wait_until_gone(running, 60) == set()
    assert list((folder / "temporary").iterdir()) == []
    assert mounts_of(folder) == []
    return figures


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1000, 1)
    return 0.0


@pytest.mark.parametrize("end", [signal.SIGKILL])
def test_a_small_burst(tmp_path: Path, end: signal.Signals) -> None:
    """Six at once, then sixty: fetched once, answered all, and nothing left."""
    burst(tmp_path, 6, 60, end)


@pytest.mark.long
@pytest.mark.parametrize(("end", "what"), [(signal.SIGTERM, SMALL), (signal.SIGKILL, NATIVE)])
def test_a_burst(
    tmp_path: Path, end: signal.Signals, what: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Fifty at once with an empty cache, then a thousand; one alone fetches as much."""
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    one = burst(tmp_path / "one", 1, 1, signal.SIGTERM, what)
    many = burst(tmp_path / "many", 50, 1000, end, what)
    assert (one["requests"], one["bytes"]) == (many["requests"], many["bytes"])
    with capsys.disabled():
        sys.stdout.write(f"\n{os.cpu_count()} processors\none: {json.dumps(one)}\nmany: {json.dumps(many)}\n")
