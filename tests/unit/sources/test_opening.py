"""From URLs to sources, and what each of them imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_bare, open_source
from cloudimport.sources.retrying import Retrying


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("/srv/shelf", "FolderSource", "file:///srv/shelf"),
        ("/srv/a:b/shelf", "FolderSource", "file:///srv/a:b/shelf"),
        ("file:///srv/my%20shelf", "FolderSource", "file:///srv/my shelf"),
        ("file://localhost/srv", "FolderSource", "file:///srv"),
        ("s3://bucket", "S3Source", "s3://bucket"),
        ("S3://bucket/a/b/", "S3Source", "s3://bucket/a/b"),
        ("gs://bucket/x", "ForeignSource", "gs://bucket/x"),
        ("https://host/shelf", "ForeignSource", "https://host/shelf"),
        ("simplecache::gs://bucket/x", "ForeignSource", "simplecache::gs://bucket/x"),
        ("memory://x", "MemorySource", "memory://x"),
    ],
)
def test_opens_urls(url: str, kind: str, shown: str) -> None:
    """Each scheme has its source, and nothing is connected when it is made."""
    source = open_bare(url, SourceConfig())
    assert (type(source).__name__, source.url) == (kind, shown)
    assert isinstance(open_source(url, SourceConfig()), Retrying)


@pytest.mark.parametrize(
    "url",
    ["", " /srv", "s3://", "s3:///key", "file://host/x", "file://", "gs://", "c://", "s3://a b", "x\0y"],
)
def test_refuses_what_is_no_url(url: str) -> None:
    """A malformed URL is a ConfigurationError in one line."""
    with pytest.raises(ConfigurationError) as caught:
        open_source(url, SourceConfig())
    assert "\n" not in str(caught.value)


def _modules_after(code: str) -> set[str]:
    root = str(Path(__file__).parents[3])
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stdout))


OPEN = (
    "from cloudimport.sources.opening import open_bare; from cloudimport.sources.config import SourceConfig\n"
)
#: Modules that cost more at import than all of the S3 source may.
HEAVY = {
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "email",
    "http.client",
    "inspect",
    "logging",
    "urllib.request",
}


def test_a_folder_loads_no_network() -> None:
    """Opening a folder loads neither sockets nor the other sources."""
    loaded = _modules_after(f"{OPEN}open_bare('/srv', SourceConfig())")
    assert not loaded & {"socket", "ssl", "hashlib", "cloudimport.sources.s3", *HEAVY}


def test_the_s3_source_keeps_its_import_budget() -> None:
    """Opening an S3 shelf with keys in the environment loads no heavy module, and no TLS yet."""
    keys = "{'AWS_ACCESS_KEY_ID': 'a', 'AWS_SECRET_ACCESS_KEY': 'b', 'AWS_REGION': 'r'}"
    loaded = _modules_after(f"{OPEN}open_bare('s3://bucket', SourceConfig(environ={keys}))")
    third = {"boto3", "botocore", "fsspec", "urllib3"}
    assert not loaded & {*HEAVY, *third, "ssl", "subprocess", "configparser", "random", "urllib.parse"}
