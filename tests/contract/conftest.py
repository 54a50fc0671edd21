"""Servers and an environment of their own for the contract tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.support.s3servers import (
    RADOSGW_INSTALL,
    S3Server,
    missing_programs,
    moto_server,
    radosgw_server,
)


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """Take away what the developer's environment says about AWS, trusted roots and proxies."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            upper = name.upper()
            if upper.startswith(("AWS_", "SSL_CERT")) or upper.endswith(("_CA_BUNDLE", "_PROXY")):
                patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        yield


@pytest.fixture(scope="session")
def moto(clean_environment: None) -> Iterator[S3Server]:
    """A moto server with signatures enforced."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def radosgw(clean_environment: None) -> Iterator[S3Server]:
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
