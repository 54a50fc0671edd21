"""Attestations: a recorded one of the public Sigstore, and those of one of our own in every way wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shelf_tools.attestations import AttestationError, verify
from tests.support.sigstores import PUBLISH, Sigstore

#: What an index sent for a release of PyPA's library, recorded; the file itself is not needed to check it.
RECORDED = Path(__file__).parent / "recorded/github.provenance.json"
FILE = "pypi_attestations-0.0.19.tar.gz"
DIGEST = "9bb1add04b1b4e182be6b0b80931593f7a291eb49d69b4fd728a5d4cbcdc4bd3"
WHEEL, SHA = "demo-1.0-py3-none-any.whl", "ab" * 32


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def sigstore(tmp_path: Path) -> Sigstore:
    """An instance that is trusted."""
    found = Sigstore()
    found.trust_in(tmp_path)
    return found


def test_recorded() -> None:
    """What the public instance has certified is right, by the roots that the library brings."""
    (found,) = verify(RECORDED.read_bytes(), FILE, DIGEST)
    assert found.publisher == {
        "kind": "GitHub",
        "repository": "trailofbits/pypi-attestations",
        "workflow": "release.yml",
    }
    assert found.predicates == (PUBLISH,)


@pytest.mark.parametrize(
    ("file", "digest"),
    [
        (FILE, "0" * 64),
        (FILE.replace("19", "20"), DIGEST),
        ("pypi_attestations-0.0.19-py3-none-any.whl", DIGEST),
    ],
)
def test_recorded_for_another_file(file: str, digest: str) -> None:
    """It is of one file: by name, and by digest."""
    with pytest.raises(AttestationError, match="subject does not match"):
        verify(RECORDED.read_bytes(), file, digest)


def _attestation(record: dict[str, Any]) -> Any:
    return record["attestation_bundles"][0]["attestations"][0]


def _flip(text: str) -> str:
    data = bytearray(base64.b64decode(text))
    data[-1] ^= 1
    return base64.b64encode(data).decode()


def _change_publisher(record: dict[str, Any]) -> None:
    record["attestation_bundles"][0]["publisher"]["repository"] = "somebody/else"


def _change_workflow(record: dict[str, Any]) -> None:
    record["attestation_bundles"][0]["publisher"]["workflow"] = "other.yml"


def _change_signature(record: dict[str, Any]) -> None:
    envelope = _attestation(record)["envelope"]
    envelope["signature"] = _flip(envelope["signature"])


def _change_statement(record: dict[str, Any]) -> None:
    envelope = _attestation(record)["envelope"]
    statement = base64.b64decode(envelope["statement"]).replace(DIGEST.encode(), b"0" * 64)
    envelope["statement"] = base64.b64encode(statement).decode()


def _change_proof(record: dict[str, Any]) -> None:
    entry = _attestation(record)["verification_material"]["transparency_entries"][0]
    entry["inclusionProof"]["rootHash"] = _flip(entry["inclusionProof"]["rootHash"])


def _change_certificate(record: dict[str, Any]) -> None:
    material = _attestation(record)["verification_material"]
    material["certificate"] = _flip(material["certificate"])


def _no_entries(record: dict[str, Any]) -> None:
    _attestation(record)["verification_material"]["transparency_entries"] = []


def _none(record: dict[str, Any]) -> None:
    record["attestation_bundles"][0]["attestations"] = []


def _no_bundles(record: dict[str, Any]) -> None:
    record["attestation_bundles"] = []


def _add_a_wrong_one(record: dict[str, Any]) -> None:
    wrong = json.loads(json.dumps(record["attestation_bundles"][0]))
    wrong["publisher"]["repository"] = "somebody/else"
    record["attestation_bundles"].append(wrong)


@pytest.mark.parametrize(
    "change",
    [
        _change_publisher, _change_workflow, _change_signature, _change_statement, _change_proof,
        _change_certificate, _no_entries, _none, _no_bundles, _add_a_wrong_one,
    ],
    ids=lambda change: change.__name__.strip("_"),
)  # fmt: skip
def test_recorded_and_changed(change: Callable[[dict[str, Any]], None]) -> None:
    """Whatever is changed in it, it is refused in one line; one wrong attestation spoils the right ones."""
    record = json.loads(RECORDED.read_text())
    change(record)
    with pytest.raises(AttestationError) as caught:
        verify(json.dumps(record).encode(), FILE, DIGEST)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", b'{"version":2,"attestation_bundles":[]}', b"[" * 9999]
)
def test_not_attestations(data: bytes) -> None:
    """What an index sends may be anything."""
    with pytest.raises(AttestationError):
        verify(data, WHEEL, SHA)


def test_an_instance_of_our_own(sigstore: Sigstore) -> None:
    """What the trusted instance has certified is right, and whose it is is said."""
    (found,) = verify(sigstore.provenance(WHEEL, SHA, repository="me/demo"), WHEEL, SHA)
    assert found.publisher == {"kind": "GitHub", "repository": "me/demo", "workflow": "release.yml"}


def test_an_instance_that_nobody_trusts(sigstore: Sigstore) -> None:
    """Another instance's certificates and logs count for nothing."""
    with pytest.raises(AttestationError):
        verify(Sigstore().provenance(WHEEL, SHA), WHEEL, SHA)


def test_an_identity_of_somebody_else(sigstore: Sigstore) -> None:
    """The index names a publisher, and the certificate is another's."""
    with pytest.raises(AttestationError):
        verify(sigstore.provenance(WHEEL, SHA, certified="somebody/else"), WHEEL, SHA)


def test_a_statement_of_another_kind(sigstore: Sigstore) -> None:
    """Only what PEP 740's indexes know as attestations counts."""
    with pytest.raises(AttestationError, match="unknown attestation type"):
        verify(sigstore.provenance(WHEEL, SHA, predicate="https://example/other/v1"), WHEEL, SHA)
