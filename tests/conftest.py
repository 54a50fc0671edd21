"""Fixtures that several kinds of tests share: real S3 servers, and venvs with the runtime installed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.support.runtimes import make_runtime
from tests.support.s3servers import (
    RADOSGW_INSTALL,
    S3Server,
    missing_programs,
    moto_server,
    radosgw_server,
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A background job of a shell ignores it, and so do the programs that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """A moto server with signatures enforced."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def radosgw() -> Iterator[S3Server]:
    """A radosgw; skipped only where its system packages are not installed."""
    if missing := missing_programs():
        pytest.skip(f"radosgw needs {', '.join(missing)}: {RADOSGW_INSTALL}")
    with radosgw_server() as server:
        yield server


@pytest.fixture
def new_bucket() -> Callable[[S3Server], str]:
    """A function that makes a bucket with a name of its own on a server."""

    def make(server: S3Server) -> str:
        return server.make_bucket(f"shelf-{os.urandom(6).hex()}")

    return make


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A function from a Python version (``3.12``) to an interpreter with only the runtime installed."""
    made: dict[str, str] = {}

    def get(version: str) -> str:
        if version not in made:
            made[version] = make_runtime(version, tmp_path_factory.mktemp(f"runtime-{version}"))
        return made[version]

    return get
