"""A Sigstore of our own, of keys that live for one test: certificates, logs, attestations by them (PEP 740).

It makes what the libraries check, and nothing more: one certificate authority, one certificate log (an SCT in
each certificate, RFC 6962), one transparency log with one entry a tree.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from pypi_attestations import AttestationType

PUBLISH: str = AttestationType.PYPI_PUBLISH_V1.value
_ISSUER, _SOURCE, _CONFIG, _DIGEST, _REF = (
    ObjectIdentifier(f"1.3.6.1.4.1.57264.1.{number}") for number in (8, 12, 18, 13, 14)
)
_SCTS = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
#: Where the library keeps the roots of the last time, below the user's cache folder.
_ROOTS = "sigstore-python/tuf/https%3A%2F%2Ftuf-repo-cdn.sigstore.dev"
_START = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
_AT = _START + datetime.timedelta(days=30)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(SHA256()))


def _der_text(text: str) -> bytes:
    """Return a DER-encoded UTF8String of less than 128 bytes."""
    data = text.encode()
    assert len(data) < 128
    return bytes([12, len(data)]) + data


class Sigstore:
    """The instance; ``trust_in`` makes the libraries of a user trust it and nothing else."""

    def __init__(self) -> None:
        self._authority, self._certificates, self._log = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(3)
        )
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        key = self._authority.public_key()
        self._root = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(1)
            .not_valid_before(_START)
            .not_valid_after(_START + datetime.timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .sign(self._authority, SHA256())
        )

    def trust_in(self, cache_home: Path) -> None:
        """Write the trusted root to where the library has it from the last time."""
        folder = cache_home / _ROOTS
        folder.mkdir(parents=True, exist_ok=True)
        log = _public(self._log)
        certificates = _public(self._certificates)
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [_instance("https://log.example", log)],
            "ctlogs": [_instance("https://ct.example", certificates)],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "test", "commonName": "test authority"},
                    "uri": "https://ca.example",
                    "certChain": {
                        "certificates": [{"rawBytes": _b64(self._root.public_bytes(Encoding.DER))}]
                    },
                    "validFor": {"start": "2026-01-01T00:00:00Z"},
                }
            ],
            "timestampAuthorities": [],
        }
        (folder / "trusted_root.json").write_text(json.dumps(root))

    def provenance(
        self,
        filename: str,
        sha256: str,
        *,
        repository: str = "owner/project",
        workflow: str = "release.yml",
        certified: str = "",
        predicate: str = PUBLISH,
    ) -> bytes:
        """Return the provenance object of a file, published by a workflow of a repository.

        ``certified`` is the repository that the certificate is really for.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(key, certified or repository, workflow)
        statement = json.dumps(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [{"name": filename, "digest": {"sha256": sha256}}],
                "predicateType": predicate,
                "predicate": None,
            }
        ).encode()
        kind = b"application/vnd.in-toto+json"
        signature = _sign(key, b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(statement), statement))
        attestation = {
            "version": 1,
            "verification_material": {
                "certificate": _b64(certificate.public_bytes(Encoding.DER)),
                "transparency_entries": [self._entry(certificate, statement, signature)],
            },
            "envelope": {"statement": _b64(statement), "signature": _b64(signature)},
        }
        publisher = {"kind": "GitHub", "repository": repository, "workflow": workflow, "environment": None}
        bundle = {"publisher": publisher, "attestations": [attestation]}
        return json.dumps({"version": 1, "attestation_bundles": [bundle]}).encode()

    def _certificate(
        self, key: ec.EllipticCurvePrivateKey, repository: str, workflow: str
    ) -> x509.Certificate:
        ref, source = "refs/tags/v1", f"https://github.com/{repository}"
        config = f"{source}/.github/workflows/{workflow}@{ref}"
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(2)
            .not_valid_before(_AT)
            .not_valid_after(_AT + datetime.timedelta(minutes=10))
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._authority.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(config)]), critical=True
            )
        )
        claims = {
            _ISSUER: "https://token.actions.githubusercontent.com",
            _SOURCE: source,
            _CONFIG: config,
            _DIGEST: "0" * 40,
            _REF: ref,
        }
        for oid, text in claims.items():
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, _der_text(text)), critical=False)
        # What the log signs is the certificate as it is before its signature is in it.
        before = builder.sign(self._authority, SHA256()).tbs_certificate_bytes
        with_sct = builder.add_extension(
            x509.UnrecognizedExtension(_SCTS, self._scts(before)), critical=False
        )
        return with_sct.sign(self._authority, SHA256())

    def _scts(self, tbs: bytes) -> bytes:
        """Return the extension with one signed certificate timestamp (RFC 6962, section 3.2 and 3.3)."""
        issuer = hashlib.sha256(_public(self._authority)).digest()
        stamp = int(_AT.timestamp() * 1000)
        entry = issuer + len(tbs).to_bytes(3, "big") + tbs
        signature = _sign(self._certificates, struct.pack("!BBQH", 0, 0, stamp, 1) + entry + b"\0\0")
        log = hashlib.sha256(_public(self._certificates)).digest()
        sct = (
            b"\0"
            + log
            + struct.pack("!QH", stamp, 0)
            + b"\4\3"
            + struct.pack("!H", len(signature))
            + signature
        )
        listed = struct.pack("!H", len(sct)) + sct
        octets = struct.pack("!H", len(listed)) + listed
        return (
            b"\4" + (bytes([len(octets)]) if len(octets) < 128 else b"\x81" + bytes([len(octets)])) + octets
        )

    def _entry(self, certificate: x509.Certificate, statement: bytes, signature: bytes) -> dict[str, Any]:
        """Return the log's entry of an attestation; its tree has no other."""
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(statement).hexdigest()},
            "signatures": [
                {"signature": _b64(signature), "verifier": _b64(certificate.public_bytes(Encoding.PEM))}
            ],
        }
        body = json.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}).encode()
        log, at = hashlib.sha256(_public(self._log)).digest(), int(_AT.timestamp()) + 5
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"log.example - 1\n1\n{_b64(root)}\n"
        signed = _b64(log[:4] + _sign(self._log, note.encode()))
        promise = {"body": _b64(body), "integratedTime": at, "logID": log.hex(), "logIndex": 0}
        return {
            "logIndex": "0",
            "logId": {"keyId": _b64(log)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(at),
            "inclusionPromise": {"signedEntryTimestamp": _b64(_sign(self._log, rfc8785.dumps(promise)))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": _b64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 log.example {signed}\n"},
            },
            "canonicalizedBody": _b64(body),
        }


def _instance(url: str, key: bytes) -> dict[str, Any]:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": _b64(key),
            "keyDetails": "PKIX_ECDSA_P256_SHA_256",
            "validFor": {"start": "2026-01-01T00:00:00Z"},
        },
        "logId": {"keyId": _b64(hashlib.sha256(key).digest())},
    }


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
