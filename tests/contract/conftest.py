"""An environment of their own for the contract tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
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
