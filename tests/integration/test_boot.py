"""``shelf trace`` and ``shelf boot`` as a user runs them, and the cold start that they make, over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.children import Runner
from tests.support.faulty import FaultyServer
from tests.support.installed import requests_shelf
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf, write_tree

HANDLER = """
import json
import cloudimport

cloudimport.install()
import requests


def handler(event, context):
    url = requests.Request("GET", "https://example.org/", params=event).prepare().url
    return {"url": url, **cloudimport.stats()}
"""
CALL = HANDLER + "\n\nprint(json.dumps(handler({'a': 1}, None)))\n"


@pytest.fixture
def shelf(tmp_path: Path) -> MadeShelf:
    """A shelf with requests, and a handler beside its lockfile."""
    made = requests_shelf(tmp_path)
    write_tree(made.work, {"handler.py": HANDLER, "call.py": CALL})
    return made


def start(shelf: MadeShelf, tmp_path: Path, name: str) -> tuple[dict[str, object], list[str]]:
    """Start the program with an empty cache; return what it says, and the keys that it asked for."""
    with FaultyServer(Path(shelf.url)) as server:
        env = {
            "CLOUDIMPORT_SHELF": "s3://bucket",
            "CLOUDIMPORT_CACHE": str(tmp_path / name),
            "CLOUDIMPORT_YANKED": "ignore",  # else the background may ask, and is counted
            "AWS_ENDPOINT_URL_S3": server.endpoint,
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1",
        }
        runner = Runner(tmp_path / "home")
        found = json.loads(runner.run_script(shelf.work / "call.py", env=env, cwd=shelf.work).ok())
        return found, [request.target for request in server.requests]


@pytest.mark.parametrize("way", ["program", "handler"])
def test_boot(shelf: MadeShelf, tmp_path: Path, way: str) -> None:
    """Traced as a program or by an event, the next cold start asks for the index and one part for each
    package, at once, and for nothing else.
    """
    before, _ = start(shelf, tmp_path, "before")
    what = ["call.py"] if way == "program" else ["handler.py", "--event", '{"a": 1}']
    traced = run_shelf("trace", *what, "-o", "t.json", cwd=shelf.work)
    assert json.loads(traced.ok().splitlines()[0])["url"] == "https://example.org/?a=1"
    assert "blocks needed" in traced.stdout
    assert "5 parts, 5 requests" in run_shelf("boot", "t.json", cwd=shelf.work).ok()
    # The shelf has a list of what the lockfile names, so that a collection leaves it.
    assert len(list(shelf.store.list("boots/"))) == 1
    collected = run_shelf("gc", "--delete", "--older-than", "0", "--shelf", shelf.url).ok()
    assert collected == "0 objects, 0 bytes deleted"
    after, paths = start(shelf, tmp_path, "after")
    assert after["url"] == before["url"]
    assert (after["round_trips"], after["requests"]) == (1, 6), (after, paths)
    assert sorted(path.count("/boot-") + 2 * path.count("/envs/") for path in paths) == [1, 1, 1, 1, 1, 2]
    assert int(str(before["round_trips"])) > 1


def test_what_is_wrong_is_said(shelf: MadeShelf) -> None:
    """A program that is not there, an event that is no JSON, one that fails before it can be traced."""
    for arguments, words in (
        (["none.py"], "none.py is not a file"),
        (["handler.py", "--event", "{"], "the event is not JSON"),
        (["handler.py", "--event", "{}", "--handler", "other"], "has no function other"),
    ):
        ran = run_shelf("trace", *arguments, cwd=shelf.work)
        assert ran.returncode == 1
        assert words in ran.stderr
    write_tree(shelf.work, {"broken.py": "import os\nos._exit(3)\n"})
    ran = run_shelf("trace", "broken.py", cwd=shelf.work)
    assert ran.returncode == 1
    assert "broken.py ended with status 3 and left no trace" in ran.stderr
    assert "cannot be read" in run_shelf("boot", "none.json", cwd=shelf.work).stderr
