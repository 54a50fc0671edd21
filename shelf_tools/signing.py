"""The curator's keys: made, read, signed with (Ed25519, by ``cryptography``).

A key file is PEM (PKCS 8, RFC 8410), unencrypted, for its owner alone; who needs more keeps it where the
system does (a secret store, an encrypted disk) and hands it over as a file. A public key is 64 hexadecimal
digits everywhere. What is signed says ``cloudimport.format.signing``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cloudimport.errors import ConfigurationError
from cloudimport.format.signing import MOST, Signature, is_sound

#: Bytes of a key file, at the most: it has some 120.
_FILE_BYTES = 16 << 10


class Signer:
    """A key pair; ``key`` is the public key, hexadecimal."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key: str = private.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> Signature:
        """Return the signature of a message."""
        return Signature(self.key, self._private.sign(message).hex())


@dataclass(frozen=True)
class Signing:
    """Who signs what is published, and whose signature on builds that are there is taken for good.

    ``roots`` are public keys, hexadecimal: they go into the lockfile; without any, what it has is kept and
    the signers' are added.
    """

    signers: tuple[Signer, ...] = ()
    roots: tuple[str, ...] = ()

    @property
    def trusted(self) -> tuple[str, ...]:
        """The roots and the signers' own keys."""
        return tuple(dict.fromkeys([*self.roots, *(signer.key for signer in self.signers)]))

    def roots_of(self, before: Sequence[str]) -> tuple[str, ...]:
        """Return the roots for a lockfile that had ``before``.

        Raises ConfigurationError if none of them signs.
        """
        if not self.signers:
            return tuple(before)
        keys = [signer.key for signer in self.signers]
        if not self.roots:
            return tuple(dict.fromkeys([*before, *keys]))
        if not set(keys) & set(self.roots):
            raise ConfigurationError(
                f"none of the roots {', '.join(root[:16] for root in self.roots)} is a key that signs "
                f"({', '.join(key[:16] for key in keys)}): readers would refuse the lockfile"
            )
        return self.roots


def new_key(path: Path) -> Signer:
    """Make a key pair and write it to the new file ``path``. Raises ConfigurationError or OSError."""
    private = Ed25519PrivateKey.generate()
    data = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists: a key is never replaced, name another file") from None
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return Signer(private)


def open_key(path: Path) -> Signer:
    """Return the key pair in a file. Raises ConfigurationError."""
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_BYTES)
        private = load_pem_private_key(data, password=None)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except TypeError:  # what the library raises for one with a password
        raise ConfigurationError(
            f"{path} is encrypted: decrypt it ('openssl pkey -in …') to a file of your own"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{path} is no key file: 'shelf key new FILE' makes one") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError(
            f"{path} is a key of another kind, not Ed25519: 'shelf key new FILE' makes one"
        )
    return Signer(private)


def signed(
    message: bytes, signers: Iterable[Signer], before: Iterable[Signature] = ()
) -> tuple[Signature, ...]:
    """Return the signatures of a message, with those of ``before`` that fit it; the newest if many."""
    found = {one.key: one for one in before if is_sound(one, message)}
    for signer in signers:
        if signer.key not in found:
            found[signer.key] = signer.sign(message)
    return tuple(found.values())[-MOST:]
