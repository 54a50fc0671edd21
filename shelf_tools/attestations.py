"""Checking a file's attestations (PEP 740), by PyPA's own library and Sigstore's.

An attestation says that a publisher's identity (a repository and its workflow, say) has uploaded this very
file. The index names the publisher, the certificate has to be his, and that is what is recorded.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, NamedTuple

from cloudimport.errors import CloudImportError

_lock = threading.Lock()
#: Why Sigstore's roots could not be refreshed, "" if they were, None before it was tried.
_stale: str | None = None
_MOST_TEXT = 300


class AttestationError(CloudImportError):
    """A file's attestations are wrong, or cannot be checked; the text says why in one line."""


class Attested(NamedTuple):
    """Whose a file's attestations are: the publisher's fields (PEP 740); and what they state (predicates)."""

    publisher: dict[str, str]
    predicates: tuple[str, ...]


def refresh() -> str:
    """Refresh Sigstore's roots (TUF), once a process; return why that failed, or "".

    If it fails, those of the last time, or those that the library brings, are used: whoever hinders it can
    keep a root that was withdrawn since in use, and cannot put one of his own there.
    """
    global _stale
    with _lock:
        if _stale is None:
            from sigstore.errors import Error
            from sigstore.models import ClientTrustConfig

            # It warns on standard error that it works offline, each time.
            for name in ("sigstore", "tuf"):
                logging.getLogger(name).addHandler(logging.NullHandler())
                logging.getLogger(name).propagate = False
            try:
                ClientTrustConfig.production()
                _stale = ""
            except (Error, OSError) as error:
                _stale = _line(error.__cause__ or error)
        return _stale


def verify(provenance: bytes, filename: str, sha256: str) -> tuple[Attested, ...]:
    """Check all attestations of a file; return whose they are, one at least. Raises AttestationError.

    ``refresh`` is called before.
    """
    from pydantic import ValidationError
    from pypi_attestations import Distribution, Provenance

    try:
        file = Distribution(name=filename, digest=sha256)
        bundles = Provenance.model_validate_json(provenance).attestation_bundles
        found = []
        for bundle in bundles:
            predicates = [one.verify(bundle.publisher, file, offline=True)[0] for one in bundle.attestations]
            if predicates:
                found.append(Attested(_fields(bundle.publisher), tuple(dict.fromkeys(predicates))))
    except ValidationError as error:
        raise AttestationError(
            f"they are not in the form of PEP 740 ({error.error_count()} errors)"
        ) from None
    except Exception as error:  # noqa: BLE001 (of hostile input; whatever the libraries raise, it is not proven)
        raise AttestationError(_line(error)) from None
    if not found:
        raise AttestationError("there are none in what the index sent")
    return tuple(found)


def _fields(publisher: Any) -> dict[str, str]:
    return {name: str(value)[:_MOST_TEXT] for name, value in publisher.model_dump(exclude_none=True).items()}


def _line(error: BaseException) -> str:
    text = " ".join((str(error) or type(error).__name__).split())
    return "".join(c if c.isprintable() else "?" for c in text)[:_MOST_TEXT]
