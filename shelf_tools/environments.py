"""Environments on a shelf: the index, its pointer, the lockfile, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from cloudimport.errors import CloudImportError, ConfigurationError, FormatError
from cloudimport.format import keys
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.lock import BootRange, Lock
from cloudimport.format.records import EnvironmentPointer, Ref, canonical, parse, requirements_digest
from cloudimport.format.signing import environment_message, is_signed, is_sound, lock_message
from cloudimport.format.status import Status
from cloudimport.ids import Target
from cloudimport.sources.base import Source
from cloudimport.sources.record import read_record
from shelf_tools.builds import write_record
from shelf_tools.indexing import Built, build_index
from shelf_tools.signing import Signer, Signing, signed
from shelf_tools.store import Store
from shelf_tools.swap import write_file

#: Racing publishers of one environment take turns; each round one of them wins.
_ROUNDS = 50


def open_shelf(store: Store) -> None:
    """Create the shelf's own records if there are none. Raises FormatError for a newer shelf."""
    found = store.read_versioned(keys.SHELF)
    if found is None:
        store.create(keys.STATUS, Status.empty().encode())
        store.create(keys.SHELF, canonical({"format": 1, "kind": "shelf", "access": "package"}))
        found = store.read_versioned(keys.SHELF)
    if found is not None:
        parse(found[0], "shelf", f"{store.url}/{keys.SHELF}")


def publish_environment(
    store: Store,
    source: Source,
    lines: Sequence[str],
    target: Target,
    builds: Iterable[Built],
    warn: Callable[[str], None],
    signers: Sequence[Signer] = (),
) -> Ref:
    """Write an environment's index and then point to it, signed; return the index's reference.

    Raises a FetchError, FormatError if what is there is of a newer format, and ConfigurationError if it
    is signed, changes, and nobody signs.
    """
    data = build_index(builds, sorted(set(lines)), target, warn)
    ref = write_record(store, keys.environment_index(""), data)
    EnvironmentIndex(read_record(source, keys.environment_index(ref.digest), ref), ref)
    key = keys.environment_pointer(requirements_digest(lines))
    message = environment_message(str(target), requirements_digest(lines), ref.digest)
    for _ in range(_ROUNDS):
        found = store.read_versioned(key)
        if found is None:
            pointer, version = EnvironmentPointer(tuple(sorted(set(lines))), {}, {}), None
        else:
            pointer, version = EnvironmentPointer.decode(found[0], f"{store.url}/{key}"), found[1]
        had = pointer.signatures.get(str(target), ())
        signatures = signed(message, signers, had)
        if had and not signatures:
            raise ConfigurationError(
                f"the environment on {store.url} is signed by {had[-1].key[:16]} and would change for "
                f"{target}: publish it with --sign KEYFILE"
            )
        if pointer.targets.get(str(target)) == ref and signatures == had:
            return ref
        if store.replace(key, pointer.merged(str(target), ref, signatures).encode(), version):
            return ref
    raise ConfigurationError(f"{store.url}/{key} kept changing while it was written: try again")


def write_lock(
    path: Path, shelf: str, lines: Sequence[str], targets: dict[str, Ref], signing: Signing | None = None
) -> None:
    """Write the lockfile; targets that it has for the same requirements are kept, and boot images of indexes
    that stay the same. Raises OSError, and ConfigurationError if it is signed, changes, and nobody signs.

    Who signs it vouches for all of it: of a lock that nobody he trusts has signed, targets that he has not
    published now are an error, and its roots are not kept.
    """
    signing = signing or Signing()
    lines = sorted(set(lines))
    kept: dict[str, Ref] = {}
    boots: dict[str, tuple[BootRange, ...]] = {}
    old, is_trusted = Lock("", (), {}, {}), not signing.signers
    try:
        text = path.read_text(encoding="utf-8")
        old = Lock.decode(text, str(path))
        is_trusted = is_trusted or is_signed(old.signatures, signing.trusted, lambda: lock_message(text))
        if list(old.requirements) == lines and old.shelf == shelf:
            kept = old.targets
            boots = {
                target: boot
                for target, boot in old.boots.items()
                if targets.get(target, kept[target]) == kept[target]
            }
    except (OSError, UnicodeDecodeError, ConfigurationError):
        pass  # absent, or of another list: it is made anew
    others = sorted(set(kept) - set(targets))
    if others and not is_trusted:
        raise ConfigurationError(
            f"{path} has {', '.join(others)}, which no trusted key has signed: publish for them too "
            "(--target), or remove the file"
        )
    roots = signing.roots_of(old.roots if is_trusted else ())
    lock = Lock(shelf, tuple(lines), {**kept, **targets}, boots, roots, old.signatures)
    replace_lock(path, lock, signing.signers)


def read_lock(path: Path) -> Lock:
    """Return the lockfile at ``path``. Raises ConfigurationError."""
    try:
        return Lock.decode(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def check_lock(path: Path, signers: Sequence[Signer]) -> None:
    """Check that who signs a lockfile anew has signed it as it stands. Raises ConfigurationError."""
    text = path.read_text(encoding="utf-8")
    locked, trusted = Lock.decode(text, str(path)), [signer.key for signer in signers]
    if signers and not is_signed(locked.signatures, trusted, lambda: lock_message(text)):
        raise ConfigurationError(
            f"{path} is not signed by {', '.join(key[:16] for key in trusted)} as it stands: "
            "'shelf publish --sign KEYFILE' looks at what it signs"
        )


def move_lock(path: Path, output: Path, shelf: str, signers: Sequence[Signer] = ()) -> Lock:
    """Return the lockfile at ``path`` as it is for another shelf, signed anew, to be written to ``output``.

    Raises ConfigurationError if it cannot be signed, or what ``output`` has is signed and this would not be.
    """
    moved = sign_lock(output, read_lock(path)._replace(shelf=shelf), signers)
    if not moved.signatures and output.exists() and read_lock(output).signatures:
        raise ConfigurationError(
            f"{output} is signed, and {path} is not: publish that with --sign KEYFILE, or write another file"
        )
    return moved


def replace_lock(path: Path, lock: Lock, signers: Sequence[Signer] = ()) -> None:
    """Write a lockfile in place of what is there, as ``sign_lock`` signs it. Raises OSError as well."""
    signed_lock = sign_lock(path, lock, signers)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, signed_lock.encode())


def sign_lock(path: Path, lock: Lock, signers: Sequence[Signer] = ()) -> Lock:
    """Return a lockfile for ``path``, signed anew, with the signatures that fit it still.

    Raises ConfigurationError if it is signed, or is to be, and none of its roots does.
    """
    signatures = signed(lock_message(lock._replace(signatures=()).encode()), signers, lock.signatures)
    if (lock.roots or lock.signatures) and not {one.key for one in signatures} & set(
        lock.roots or (one.key for one in lock.signatures)
    ):
        raise ConfigurationError(f"{path} is signed and would change: give --sign KEYFILE to sign it anew")
    return lock._replace(signatures=signatures)


def verify_environments(store: Store, source: Source) -> list[str]:
    """Return a line for each thing that is wrong with the shelf's environments.

    What is forgotten or replaced while it is looked at is not: collections and publishes may run beside.
    """
    problems: list[str] = []
    for key in sorted(store.list("envs/")):
        if key.endswith(".json"):
            problems += _environment_problems(store, source, key)
    return problems


def _environment_problems(store: Store, source: Source, key: str) -> list[str]:
    where = f"{source.url}/{key}"
    while True:
        data = b""
        try:
            data = source.read(key)
            pointer = EnvironmentPointer.decode(data, where)
            if keys.environment_pointer(requirements_digest(pointer.requirements)) != key:
                raise FormatError(f"{where} is for other requirements than its name says")
            for target, ref in pointer.targets.items():
                _check_index(source, target, ref)
            return list(_signature_problems(pointer, where))
        except CloudImportError as error:
            found = store.read_versioned(key)
            if found is None:
                return []  # it was forgotten meanwhile
            if not data or found[0] == data:
                return [str(error)]


def _signature_problems(pointer: EnvironmentPointer, what: str) -> Iterator[str]:
    """Yield a line for each signature that does not fit the index that its target has."""
    digest = requirements_digest(pointer.requirements)
    for target, signatures in pointer.signatures.items():
        message = environment_message(target, digest, pointer.targets[target].digest)
        for one in signatures:
            if not is_sound(one, message):
                yield f"{what}: the signature by {one.key[:16]} does not fit the index for {target}"


def _check_index(source: Source, target: str, ref: Ref) -> None:
    key = keys.environment_index(ref.digest)
    index = EnvironmentIndex(read_record(source, key, ref), ref)
    if index.target != target:
        raise FormatError(f"{source.url}/{key} is for {index.target}, not for {target}")
    for number in range(len(index.builds)):
        section = index.section(number)
        for block in range(section.block_count):
            section.block(block)
        for file in range(len(section.paths)):
            section.pieces(section.extents[file])
        section.folder("")
