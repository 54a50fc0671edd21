"""Which environment is wanted: a lockfile or a requirements file to an index.

Import budget: nothing of its own.
"""

from __future__ import annotations

import marshal
import os
import sys
import time

from cloudimport.cache.disk import frame, read_framed, write_atomically
from cloudimport.errors import (
    AbsentError,
    ConfigurationError,
    DeniedError,
    FormatError,
    NotPublishedError,
)
from cloudimport.events import Counters
from cloudimport.format import keys
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.lock import Lock
from cloudimport.format.records import EnvironmentPointer, Ref, requirements_digest, sha256
from cloudimport.ids import Pin, Target
from cloudimport.settings import Settings
from cloudimport.sources.base import Source
from cloudimport.sources.record import read_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

#: What files with a byte order mark begin with.
_MARKS = (b"\xef", b"\xff", b"\xfe", b"\0")
#: What the lists are called that are not requirements files: pylock.toml (PEP 751), pyproject.toml, uv.lock.
_PUBLISHERS_ONLY = (".toml", "uv.lock")
#: How many pins are looked up, one by one, to say which of them are missing.
_DIAGNOSED = 500


def _read_text(path: str) -> str:
    with open(path, "rb") as file:
        data = file.read()
    if data[:1] not in _MARKS:
        return data.decode()
    from cloudimport.format import requirements

    return requirements.decode(data)


def read_lock(settings: Settings) -> Lock:
    """Return the lockfile.

    Raises ConfigurationError, also if the requirements beside it do not match, and SignatureError.
    """
    try:
        text = _read_text(settings.lock)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{settings.lock} cannot be read: {error}") from None
    locked = Lock.decode(text, settings.lock)
    roots = settings.roots or locked.roots
    if roots:
        from cloudimport.format import signing

        remedy = "sign it with 'shelf publish --lock FILE --sign KEYFILE'"
        signing.check(locked.signatures, roots, lambda: signing.lock_message(text), settings.lock, remedy)
    if settings.requirements and not _are_lines_of(settings.requirements, locked.requirements):
        lines = _lines(settings)
        if requirements_digest(lines) != requirements_digest(locked.requirements):
            difference = ", ".join(sorted(set(lines) ^ set(locked.requirements))[:5])
            raise ConfigurationError(
                f"{settings.lock} does not match {settings.requirements} ({difference}): "
                f"run 'shelf publish -r {settings.requirements} --lock {settings.lock}'"
            )
    return locked


def _are_lines_of(path: str, lines: tuple[str, ...]) -> bool:
    """Whether a file has just these lines as they are: then it need not be parsed, which takes 5 ms."""
    try:
        found = map(str.strip, _read_text(path).splitlines())
    except (OSError, UnicodeDecodeError):
        return False  # the parser says what is wrong
    return {line for line in found if line and line[0] != "#"} == set(lines)


def _lines(settings: Settings) -> list[str]:
    from cloudimport.format import requirements

    if settings.requirements.endswith(_PUBLISHERS_ONLY):
        raise ConfigurationError(
            f"{settings.requirements} is read by 'shelf publish' only: use the lockfile that it writes, "
            "which has the requirements in it"
        )
    return [requirement.line for requirement in requirements.parse_file(settings.requirements, _read_text)]


def _pick(available: Iterable[str], targets: list[Target], what: str) -> str:
    offered = set(available)
    for target in targets:
        if str(target) in offered:
            return str(target)
    raise NotPublishedError(
        f"{what} was published for {', '.join(sorted(offered)) or 'no target'}, and this interpreter needs "
        f"{targets[0] if targets else 'another'}: run 'shelf publish --target "
        f"{targets[0] if targets else 'TARGET'}'"
    )


def from_lock(locked: Lock, settings: Settings, targets: list[Target]) -> tuple[Ref, str]:
    """Return (index, target) for this interpreter. Raises NotPublishedError if the lock has none."""
    target = _pick(locked.targets, targets, settings.lock)
    return locked.targets[target], target


def from_shelf(source: Source, settings: Settings, targets: list[Target]) -> tuple[Ref, str]:
    """Return (index, target) by the environment's pointer.

    Raises NotPublishedError, SignatureError or a FetchError.
    """
    lines = _lines(settings)
    digest = requirements_digest(lines)
    key = keys.environment_pointer(digest)
    try:
        pointer = EnvironmentPointer.decode(source.read(key), f"{source.url}/{key}")
    except (AbsentError, DeniedError) as error:
        raise _not_published(source, settings, lines, targets[0], error) from error
    if requirements_digest(pointer.requirements) != digest:
        raise FormatError(f"{source.url}/{key} is for other requirements")
    target = _pick(pointer.targets, targets, settings.requirements)
    if settings.roots:
        from cloudimport.format import signing

        index = pointer.targets[target].digest
        signing.check(
            pointer.signatures.get(target, ()),
            settings.roots,
            lambda: signing.environment_message(target, digest, index),
            f"the environment of {settings.requirements} for {target} on {source.url}",
            f"sign it with 'shelf publish -r {settings.requirements} --sign KEYFILE'",
        )
    return pointer.targets[target], target


def _not_published(
    source: Source, settings: Settings, lines: list[str], target: Target, error: AbsentError | DeniedError
) -> NotPublishedError:
    """Say which pins are missing, and both causes where the store does not tell them apart."""
    from cloudimport.format import requirements

    command = f"run 'shelf publish -r {settings.requirements} --shelf {source.url}'"
    pins = [requirement.pin for requirement in requirements.parse_lines(lines)]
    if isinstance(error, DeniedError):
        return NotPublishedError(
            f"{settings.requirements} is not published on {source.url}, or reading it is not allowed "
            f"({error}): check the credentials, or {command}",
            tuple(map(str, pins)),
        )
    missing = tuple(str(pin) for pin in pins[:_DIAGNOSED] if not _is_published(source, pin, target))
    named = (
        f"missing for {target}: {', '.join(missing)}"
        if missing
        else "its packages are, the list as a whole is not"
    )
    return NotPublishedError(
        f"{settings.requirements} is not published on {source.url} ({named}): {command}", missing
    )


def _is_published(source: Source, pin: Pin, target: Target) -> bool:
    """Whether a build is there; asked only to explain an error, never on the way to an import."""
    try:
        source.read(keys.build_pointer(pin.name, pin.version, str(target)))
    except (AbsentError, DeniedError):
        return False
    return True


def read_index(
    source: Source, cache_root: str, ref: Ref, target: str, counters: Counters
) -> EnvironmentIndex:
    """Return an environment index, from the cache or into it. Raises a FetchError or FormatError."""
    found = cached_index(cache_root, ref, target, counters)
    return found or fetched_index(source, cache_root, ref, target, counters)


def cached_index(cache_root: str, ref: Ref, target: str, counters: Counters) -> EnvironmentIndex | None:
    """Return an environment index from the cache, None if it has none. Raises FormatError."""
    try:
        data = read_framed(_index_path(cache_root, ref), ref.digest, ref.size)
    except (OSError, ValueError):
        counters.add("cache_repairs")
        data = None
    if data is None:
        return None
    counters.add("cache_hits")
    return _checked(EnvironmentIndex(data, ref, _Columns(cache_root, ref, counters)), target)


def fetched_index(
    source: Source, cache_root: str, ref: Ref, target: str, counters: Counters
) -> EnvironmentIndex:
    """Return an environment index from the shelf, and keep it. Raises a FetchError or FormatError."""
    counters.add("cache_misses")
    counters.add("round_trips")
    data = read_record(source, keys.environment_index(ref.digest), ref)
    index = _checked(EnvironmentIndex(data, ref, _Columns(cache_root, ref, counters)), target)
    keep_index(cache_root, ref, data, counters)
    return index


def keep_index(cache_root: str, ref: Ref, data: bytes, counters: Counters) -> None:
    """Keep an environment index (its plain bytes) in the cache, if that can be written."""
    path = _index_path(cache_root, ref)
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        _keep(path, data, ref.digest, counters)
    except OSError:
        pass  # without a cache on disk the next process fetches it again


def cached_status(cache_root: str, url: str) -> tuple[bytes, float] | None:
    """Return what the shelf at ``url`` said last of yanked pins, and how many seconds ago that was.

    None: it was not asked, or the answer is damaged. Nothing: it did not say.
    """
    path = status_path(cache_root, url)
    try:
        data = read_framed(path, os.path.basename(path))
        return None if data is None else (data, time.time() - os.stat(path).st_mtime)
    except (OSError, ValueError):
        return None


def keep_status(cache_root: str, url: str, data: bytes) -> None:
    """Keep what a shelf says of yanked pins; what cannot be kept is asked again by the next process."""
    path = status_path(cache_root, url)
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        write_atomically(path, data, frame(data, os.path.basename(path)))
    except OSError:
        pass


def status_path(cache_root: str, url: str) -> str:
    """Return the path of the file that has what a shelf says of yanked pins."""
    return f"{cache_root}/v1/status/{sha256(url.encode())}"


def _index_path(cache_root: str, ref: Ref) -> str:
    return f"{cache_root}/v1/indexes/{ref.digest}"


class _Columns:
    """Columns of an index's sections beside it, as ``marshal`` has them: they were checked once."""

    def __init__(self, cache_root: str, ref: Ref, counters: Counters) -> None:
        # Whatever changes what they are or mean changes the name.
        self._path = f"{_index_path(cache_root, ref)}.columns2-{sys.implementation.cache_tag}"
        self._counters = counters

    def get(self, build: int) -> dict[str, Any] | None:
        """Return the columns of a build's section, or None."""
        path = f"{self._path}-{build}"
        try:
            data = read_framed(path, os.path.basename(path))
            return None if data is None else dict(marshal.loads(data))
        except (OSError, ValueError, EOFError, TypeError):
            self._counters.add("cache_repairs")
            return None

    def put(self, build: int, columns: dict[str, Any]) -> None:
        """Keep them; what cannot be kept is checked again by the next process."""
        path = f"{self._path}-{build}"
        data = marshal.dumps(columns)
        try:
            _keep(path, data, os.path.basename(path), self._counters)
        except OSError:
            pass


def _keep(path: str, data: bytes, name: str, counters: Counters) -> None:
    """Write a framed file, and count its bytes. Raises OSError."""
    trailer = frame(data, name)
    write_atomically(path, data, trailer)
    counters.add("bytes_cached", len(data) + len(trailer))


def _checked(index: EnvironmentIndex, target: str) -> EnvironmentIndex:
    if index.target != target:
        raise FormatError(f"environment index {index.digest[:12]} is for {index.target}, not for {target}")
    return index
