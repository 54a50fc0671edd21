"""What a curator signs, and whether a signature on it counts (docs/format.md, section 14). Pure.

Loaded only when a root is set, or a record has signatures. Import budget: nothing; ``json`` and ``hashlib``
on first use.
"""

from __future__ import annotations

from cloudimport.errors import ConfigurationError, SignatureError
from cloudimport.format import jsontext
from cloudimport.format.records import FORMAT, canonical

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

_KEY_DIGITS, _SIGNATURE_DIGITS = 64, 128
_DIGITS = frozenset("0123456789abcdef")
#: Signatures on one record, at the most: each check takes milliseconds, and who writes a record chooses them.
MOST = 16


class Signature(NamedTuple):
    """A public key and what it signed a record with (Ed25519), both hexadecimal."""

    key: str
    value: str


def parse_signatures(rows: object) -> tuple[Signature, ...]:
    """Return the signatures in a record's field. Raises ValueError."""
    if not isinstance(rows, list) or len(rows) > MOST:
        raise ValueError(f"signatures are a list of {MOST} at the most")
    found = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 2 or not _is_hex(row[0], _KEY_DIGITS):
            raise ValueError("a signature is a public key and a signature")
        if not _is_hex(row[1], _SIGNATURE_DIGITS):
            raise ValueError(f"a signature has {_SIGNATURE_DIGITS} hexadecimal digits")
        found.append(Signature(row[0], row[1]))
    return tuple(found)


def parse_keys(texts: Iterable[object], what: str) -> tuple[str, ...]:
    """Return public keys, each once, in order. Raises ConfigurationError that names ``what``."""
    from cloudimport.format.ed25519 import is_key

    found: dict[str, None] = {}
    for text in texts:
        if not isinstance(text, str) or not _is_hex(text, _KEY_DIGITS) or not is_key(bytes.fromhex(text)):
            raise ConfigurationError(
                f"{what}: {str(text)[:100]!r} is no public key: it has {_KEY_DIGITS} hexadecimal digits, as "
                "'shelf key show FILE' prints them"
            )
        found[text] = None
    return tuple(found)


def _is_hex(text: object, digits: int) -> bool:
    return isinstance(text, str) and len(text) == digits and _DIGITS.issuperset(text)


def environment_message(target: str, requirements: str, index: str) -> bytes:
    """Return what is signed of an environment: its target, requirements digest and index digest."""
    return _message("environment", {"target": target, "requirements": requirements, "index": index})


def build_message(name: str, version: str, target: str, content: str, layout: str, provenance: str) -> bytes:
    """Return what is signed of a build: whose it is, and the digests of its content, layout, provenance."""
    record = {"name": name, "version": version, "target": target, "content": content, "layout": layout}
    return _message("build", {**record, "provenance": provenance})


def lock_message(text: str) -> bytes:
    """Return what is signed of a lockfile, which was decoded before: all but its signatures."""
    record: dict[str, object] = jsontext.loads(text)
    return _message("lock", {name: value for name, value in record.items() if name != "signatures"})


def _message(kind: str, record: Mapping[str, object]) -> bytes:
    """Return the bytes of a message. The first line keeps one kind from being taken for another."""
    try:
        return f"cloudimport signed {kind} {FORMAT}\n".encode() + canonical(record)
    except UnicodeEncodeError:
        raise SignatureError(
            f"the {kind} has text that is not Unicode: nobody can have signed that"
        ) from None


def is_signed(signatures: Sequence[Signature], roots: Iterable[str], message: Callable[[], bytes]) -> bool:
    """Whether one of the roots has signed the message."""
    trusted = set(roots)
    theirs = [signature for signature in signatures if signature.key in trusted]
    return any(is_sound(signature, message()) for signature in theirs)


def is_sound(signature: Signature, message: bytes) -> bool:
    """Whether a signature is its key's for the message, whoever's the key is."""
    from cloudimport.format.ed25519 import is_valid

    return is_valid(bytes.fromhex(signature.key), bytes.fromhex(signature.value), message)


def check(
    signatures: Sequence[Signature],
    roots: Sequence[str],
    message: Callable[[], bytes],
    what: str,
    remedy: str,
) -> None:
    """Check that one of ``roots`` has signed. Raises SignatureError with ``what`` and the ``remedy``."""
    if is_signed(signatures, roots, message):
        return
    wanted = ", ".join(root[:16] for root in roots)
    if not signatures:
        raise SignatureError(f"{what} is not signed, and has to be by {wanted}: {remedy}")
    if not {signature.key for signature in signatures} & set(roots):
        by = ", ".join(signature.key[:16] for signature in signatures)
        raise SignatureError(f"{what} is signed by {by}, and has to be by {wanted}: {remedy}")
    raise SignatureError(f"{what} is not what {wanted} signed: the signature does not fit it: {remedy}")
