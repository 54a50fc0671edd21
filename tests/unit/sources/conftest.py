"""An environment without the developer's settings."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the developer's environment says about AWS, trusted roots and proxies."""
    for name in list(os.environ):
        upper = name.upper()
        if upper.startswith(("AWS_", "SSL_CERT")) or upper.endswith(("_CA_BUNDLE", "_PROXY")):
            monkeypatch.delenv(name)
