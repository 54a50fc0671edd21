"""A second process with the same cache and a lockfile needs no store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.children import Runner
from tests.support.faulty import FaultyServer
from tests.support.installed import requests_shelf
from tests.support.shelves import MadeShelf

CODE = """
    import json, sys
    import cloudimport
    env = cloudimport.install()
    import requests, requests.adapters, importlib.metadata
    with open(env.root + "/certifi/cacert.pem") as stream:
        size = len(stream.read())
    assert requests.__file__.startswith(env.root)
    stats = cloudimport.stats()
    version = importlib.metadata.version("requests")
    print(json.dumps([version, size, stats["requests"], stats["bytes_fetched"]]))
"""


@pytest.fixture
def shelf(tmp_path: Path) -> MadeShelf:
    """A shelf with requests."""
    return requests_shelf(tmp_path)


def test_a_second_process_makes_no_request_with_the_store_off(shelf: MadeShelf, tmp_path: Path) -> None:
    """The first process fetches; the second, with the server gone, does the same with 0 requests."""
    runner = Runner(tmp_path / "home")
    env = {
        "CLOUDIMPORT_LOCK": str(shelf.lock),
        "CLOUDIMPORT_SHELF": "s3://bucket",
        "CLOUDIMPORT_CACHE": str(tmp_path / "cache"),
        "CLOUDIMPORT_YANKED": "ignore",  # else the background may ask, and is counted
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }
    with FaultyServer(Path(shelf.url)) as server:
        env["AWS_ENDPOINT_URL_S3"] = server.endpoint
        first = json.loads(runner.run(CODE, env=env).ok())
        made = [request.method for request in server.requests]
    second = json.loads(runner.run(CODE, env=env).ok())
    assert set(made) == {"GET"}
    assert 0 < first[2] <= len(made) < 40  # what was fetched ahead may still have been on its way
    assert second == [first[0], first[1], 0, 0]
