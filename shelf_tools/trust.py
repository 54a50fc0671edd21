"""Signatures on builds: whether one that is on the shelf already is signed, and signing it as it is.

A publisher that signs an environment vouches for all its builds, those too that it found: so these have to
be signed by somebody it trusts (docs/format.md, section 14).
"""

from __future__ import annotations

from collections.abc import Sequence

from cloudimport.errors import CloudImportError, ConfigurationError, FormatError
from cloudimport.format import keys, signing
from cloudimport.format.layout import BuildPointer
from cloudimport.ids import Pin
from cloudimport.sources.base import Source
from shelf_tools.builds import message_of, verify_build
from shelf_tools.indexing import Built
from shelf_tools.signing import Signer, signed
from shelf_tools.store import Store

#: Racing writers of one pointer take turns; each round one of them wins.
_ROUNDS = 50


def check_signed(source: Source, built: Built, trusted: Sequence[str]) -> BuildPointer:
    """Check that a published build, as it was read, is signed by one of the keys; return its pointer.

    The provenance that it names is signed too. Raises SignatureError.
    """
    content = built.content
    key = keys.build_pointer(content.name, content.version, content.target)
    pointer = BuildPointer.decode(source.read(key), f"{source.url}/{key}")
    message = signing.build_message(
        content.name,
        content.version,
        content.target,
        built.content_digest,
        built.layout_digest,
        pointer.provenance.digest,
    )
    pin = f"{content.name}=={content.version}"
    signing.check(
        pointer.signatures,
        trusted,
        lambda: message,
        f"{pin} for {content.target}, which is on {source.url} already,",
        f"if you trust it as it is there, 'shelf key sign KEYFILE {pin}'; else use a shelf of your own",
    )
    return pointer


def sign_build(store: Store, source: Source, pin: Pin, target: str, signers: Sequence[Signer]) -> bool:
    """Sign a build of the shelf, as it is there, if all of it is sound; return whether it was not yet.

    Raises ConfigurationError if it is not there, FormatError with what is wrong with it, or a FetchError.
    """
    key = keys.build_pointer(pin.name, pin.version, target)
    for _ in range(_ROUNDS):
        found = store.read_versioned(key)
        if found is None:
            raise ConfigurationError(f"{pin} for {target} is not on {store.url}")
        pointer, version = BuildPointer.decode(found[0], f"{store.url}/{key}"), found[1]
        problems = verify_build(source, pin, target, signatures=False)
        if problems:
            raise FormatError("\n".join(f"{pin}: not signed: {problem}" for problem in problems))
        signatures = signed(message_of(pointer), signers, pointer.signatures)
        if signatures == pointer.signatures:
            return False
        # If it was verified as another writer has made it since, this version is not there any more.
        if store.replace(key, pointer._replace(signatures=signatures).encode(), version):
            return True
    raise CloudImportError(f"{store.url}/{key} kept changing while it was signed: try again")
