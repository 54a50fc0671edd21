"""The only place where the runtime is put together: settings to index to finders.

Import budget: 30 ms of CPU for ``import cloudimport`` and ``install()`` without network; no third party.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from cloudimport import settings as settings_module
from cloudimport.cache.disk import DiskBlocks, frame, read_framed, write_atomically
from cloudimport.cache.hot import HotBlocks
from cloudimport.cache.tiered import BlockCache
from cloudimport.errors import (
    AbsentError,
    ConfigurationError,
    CorruptError,
    DeniedError,
    FormatError,
    NotPublishedError,
)
from cloudimport.events import Counters
from cloudimport.fetch.engine import Fetcher
from cloudimport.format import codec, keys, requirements
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.lock import Lock
from cloudimport.format.records import EnvironmentPointer, Ref, sha256
from cloudimport.ids import Pin, Target, running_targets
from cloudimport.importer.finder import ShelfFinder, path_hook, teach_pkgutil
from cloudimport.settings import Settings
from cloudimport.site.children import Children
from cloudimport.site.patches import Patches
from cloudimport.site.tree import SiteTree
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.counting import Counting
from cloudimport.sources.opening import open_bare
from cloudimport.sources.retrying import Retrying

#: How many pins are looked up, one by one, to say which of them are missing.
_DIAGNOSED = 500


class Environment:
    """What ``install`` returns: the environment that imports now come from."""

    def __init__(
        self, parts: _Parts, finder: ShelfFinder, hook: Any, patches: Patches, children: Children
    ) -> None:
        self._parts = parts
        self._finder, self._hook, self._patches, self._children = finder, hook, patches, children
        self._inherited = False

    @property
    def digest(self) -> str:
        """Digest of the environment index."""
        return self._parts.index.digest

    @property
    def target(self) -> str:
        """The target that was picked for this interpreter."""
        return self._parts.index.target

    @property
    def pins(self) -> list[Pin]:
        """The pins of the environment, sorted by name."""
        return self._parts.index.pins

    @property
    def root(self) -> str:
        """The site tree's root, which stands on ``sys.path``."""
        return self._parts.tree.root

    @property
    def shelf(self) -> str:
        """The shelf's URL."""
        return self._parts.counting.url

    def stats(self) -> dict[str, float]:
        """Return counts since ``install``; bytes are bytes on the wire, ``wait_seconds`` seconds."""
        counting = self._parts.counting
        return {
            "requests": counting.requests,
            "bytes_fetched": counting.bytes,
            **self._parts.counters.snapshot(),
        }

    def __repr__(self) -> str:
        return f"<cloudimport environment of {len(self.pins)} packages for {self.target} from {self.shelf}>"


class _Parts:
    """The objects of one installed environment."""

    def __init__(self, settings: Settings, shelf: str) -> None:
        self.settings = settings
        self.cache_root = _cache_folder(settings.cache)
        self.counters = Counters()
        config = SourceConfig(environ=settings.environ, deadline=settings.deadline)
        self.counting = Counting(open_bare(shelf, config))
        self.source: Source = Retrying(self.counting, config.attempts, config.deadline)
        self.hot = HotBlocks(settings.memory_bytes)
        disk = DiskBlocks(f"{self.cache_root}/v1/blocks", settings.cache_bytes, self.counters)
        self.cache = BlockCache(self.hot, disk, self.counters)
        self.fetcher = Fetcher(self.source, self.cache, self.counters)
        self.index: EnvironmentIndex
        self.tree: SiteTree

    def open_index(self, ref: Ref, target: str) -> None:
        """Get the environment index and the tree over it. Raises a FetchError or FormatError."""
        self.index = EnvironmentIndex(self._index_bytes(ref), ref)
        if self.index.target != target:
            raise FormatError(
                f"environment index {ref.digest[:12]} is for {self.index.target}, not for {target}"
            )
        folder = f"{self.cache_root}/v1/trees/{ref.digest[:32]}"
        self.tree = SiteTree(
            os.path.realpath(folder), self.index, self.fetcher, self.counters, _temporary_folder
        )

    def _index_bytes(self, ref: Ref) -> bytes:
        path = f"{self.cache_root}/v1/indexes/{ref.digest}"
        try:
            data = read_framed(path, ref.digest, ref.size)
        except (OSError, ValueError):
            self.counters.add("cache_repairs")
            data = None
        if data is not None:
            self.counters.add("cache_hits")
            return data
        self.counters.add("cache_misses")
        data = _fetch_record(self.source, keys.environment_index(ref.digest), ref)
        try:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            write_atomically(path, data, frame(data, ref.digest))
        except OSError:
            pass  # without a cache on disk the next process fetches it again
        return data

    def forget(self) -> None:
        """In a forked child: drop what belongs to the parent."""
        self.source.forget()
        self.counters.forget_lock()
        self.cache.forget_locks()
        self.fetcher.forget()


#: A path where nothing can be: everything runs from memory, native code excepted.
_NO_FOLDER = "/dev/null/cloudimport"

_current: Environment | None = None
#: (process, its temporary folder)
_temporary: tuple[int, str] | None = None
_fork_registered = False


def install(
    requirements_file: str | None = None,
    *,
    shelf: str | None = None,
    lock: str | None = None,
    cache: str | None = None,
) -> Environment:
    """Install the environment of a lockfile or requirements file; see ``cloudimport.install``."""
    inherited = _current if _current is not None and _current._inherited else None
    try:
        settings = settings_module.resolve(requirements_file, shelf, lock, cache)
    except ConfigurationError:
        if inherited is None or requirements_file or lock:
            raise
        return inherited  # a child need not find what its parent has found
    targets = running_targets()
    locked = _read_lock(settings) if settings.lock else None
    url = (
        settings.shelf or (locked.shelf if locked else "") or settings_module.default_shelf(settings.environ)
    )
    parts = _Parts(settings, url)
    ref, target = _from_lock(locked, settings, targets) if locked else _from_shelf(parts, settings, targets)
    if _current is not None:
        if _current.digest == ref.digest and _current.shelf == parts.counting.url:
            return _current
        if inherited is None:
            raise ConfigurationError("another environment is installed: call cloudimport.uninstall() first")
        uninstall()
    parts.open_index(ref, target)
    return _activate(parts, ref, target)


def install_child(record: Mapping[str, Any]) -> Environment:
    """Install what a parent installed (cloudimport/site/bootstrap)."""
    environ = dict(os.environ)
    settings = Settings(
        record["shelf"],
        "",
        "",
        record["cache"],
        record["cache_bytes"],
        record["memory_bytes"],
        record["deadline"],
        environ,
    )
    parts = _Parts(settings, settings.shelf)
    parts.open_index(Ref(*record["index"]), record["target"])
    environment = _activate(parts, Ref(*record["index"]), record["target"])
    environment._inherited = True
    return environment


def _activate(parts: _Parts, ref: Ref, target: str) -> Environment:
    """Put finders, path, patches and children in place. Everything that can fail came before."""
    global _current
    try:
        parts.tree.create()
    except OSError:
        pass  # modules still run from memory; whatever needs a file says so itself
    codec.locate()
    patches = Patches(parts.tree)
    finder, hook = ShelfFinder(parts.tree, _watched(patches)), path_hook(parts.tree)
    children = Children(_child_record(parts, ref, target), os.environ)
    _forget_importers(parts.tree.root)
    sys.path_hooks.insert(0, hook)
    sys.path.insert(_position(sys.path), parts.tree.root)
    sys.meta_path.insert(_before_path_finder(), finder)
    patches.install()
    children.install()
    _register_fork()
    _current = Environment(parts, finder, hook, patches, children)
    return _current


def _watched(patches: Patches) -> dict[str, Callable[[ModuleType], None]]:
    """Return what to call when a module of the standard library was loaded; tells those that are."""
    pkgutil = sys.modules.get("pkgutil")
    if pkgutil is not None:
        teach_pkgutil(pkgutil)
    return {**patches.later(), "pkgutil": teach_pkgutil}


def _forget_importers(root: str) -> None:
    """Drop what ``sys.path_importer_cache`` has for the tree, so that path hooks are asked again."""
    for path in [p for p in sys.path_importer_cache if p == root or p.startswith(root + "/")]:
        del sys.path_importer_cache[path]


def uninstall() -> None:
    """Take everything out again; harmless when nothing is installed. Loaded modules stay loaded."""
    global _current
    environment, _current = _current, None
    if environment is None:
        return
    environment._children.uninstall()
    environment._patches.uninstall()
    places: tuple[tuple[list[Any], Any], ...] = (
        (sys.meta_path, environment._finder),
        (sys.path_hooks, environment._hook),
    )
    for entries, ours in places:
        if ours in entries:
            entries.remove(ours)
    sys.path[:] = [entry for entry in sys.path if entry != environment.root]
    _forget_importers(environment.root)
    environment._parts.source.close()


def current() -> Environment | None:
    """Return the installed environment, or None."""
    return _current


def _child_record(parts: _Parts, ref: Ref, target: str) -> dict[str, Any]:
    settings = parts.settings
    return {
        "python": [*sys.version_info[:2], sys.prefix],
        "runtime": os.path.dirname(os.path.abspath(__file__)),
        "shelf": parts.counting.url,
        "cache": parts.cache_root,
        "cache_bytes": settings.cache_bytes,
        "memory_bytes": settings.memory_bytes,
        "deadline": settings.deadline,
        "index": list(ref),
        "target": target,
    }


def _register_fork() -> None:
    global _fork_registered
    if not _fork_registered:
        _fork_registered = True
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    if _current is not None:
        _current._parts.forget()


# The environment that is wanted


def _read_text(path: str) -> str:
    with open(path, "rb") as file:
        return requirements.decode(file.read())


def _read_lock(settings: Settings) -> Lock:
    try:
        text = _read_text(settings.lock)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{settings.lock} cannot be read: {error}") from None
    locked = Lock.decode(text, settings.lock)
    if settings.requirements:
        lines = _lines(settings)
        if requirements.digest(lines) != requirements.digest(locked.requirements):
            difference = ", ".join(sorted(set(lines) ^ set(locked.requirements))[:5])
            raise ConfigurationError(
                f"{settings.lock} does not match {settings.requirements} ({difference}): "
                f"run 'shelf publish -r {settings.requirements} --lock {settings.lock}'"
            )
    return locked


def _lines(settings: Settings) -> list[str]:
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


def _from_lock(locked: Lock, settings: Settings, targets: list[Target]) -> tuple[Ref, str]:
    target = _pick(locked.targets, targets, settings.lock)
    return locked.targets[target], target


def _from_shelf(parts: _Parts, settings: Settings, targets: list[Target]) -> tuple[Ref, str]:
    lines = _lines(settings)
    digest = requirements.digest(lines)
    key = keys.environment_pointer(digest)
    try:
        pointer = EnvironmentPointer.decode(parts.source.read(key), f"{parts.source.url}/{key}")
    except (AbsentError, DeniedError) as error:
        raise _not_published(parts, settings, lines, targets[0], error) from error
    if requirements.digest(pointer.requirements) != digest:
        raise FormatError(f"{parts.source.url}/{key} is for other requirements")
    target = _pick(pointer.targets, targets, settings.requirements)
    return pointer.targets[target], target


def _not_published(
    parts: _Parts, settings: Settings, lines: list[str], target: Target, error: AbsentError | DeniedError
) -> NotPublishedError:
    """Say which pins are missing, and both causes where the store does not tell them apart."""
    command = f"run 'shelf publish -r {settings.requirements} --shelf {parts.source.url}'"
    pins = [requirement.pin for requirement in requirements.parse_lines(lines)]
    if isinstance(error, DeniedError):
        return NotPublishedError(
            f"{settings.requirements} is not published on {parts.source.url}, or reading it is not allowed "
            f"({error}): check the credentials, or {command}",
            tuple(map(str, pins)),
        )
    missing = tuple(str(pin) for pin in pins[:_DIAGNOSED] if not _is_published(parts.source, pin, target))
    named = (
        f"missing for {target}: {', '.join(missing)}"
        if missing
        else "its packages are, the list as a whole is not"
    )
    return NotPublishedError(
        f"{settings.requirements} is not published on {parts.source.url} ({named}): {command}", missing
    )


def _is_published(source: Source, pin: Pin, target: Target) -> bool:
    """Whether a build is there; asked only to explain an error, never on the way to an import."""
    try:
        source.read(keys.build_pointer(pin.name, pin.version, str(target)))
    except (AbsentError, DeniedError):
        return False
    return True


def _fetch_record(source: Source, key: str, ref: Ref) -> bytes:
    """Return the plain bytes of a record object. Raises CorruptError after a second look."""
    for attempt in (0, 1):
        try:
            data = codec.decompress(source.read(key), ref.size)
            actual = sha256(data)
        except FormatError as error:
            data, actual = b"", str(error)
        if actual == ref.digest:
            return data
        if attempt:
            raise CorruptError(
                f"{source.url}/{key} is damaged: expected sha256 {ref.digest}, got {actual}",
                key=key,
                expected=ref.digest,
                actual=actual,
            )
    raise AssertionError("unreachable")


# The place in sys


def _position(path: list[str]) -> int:
    """Return where the site tree goes: after the handler and the standard library, before site-packages.

    In Lambda the runtime's own packages and the layers' stand before the standard library; the
    site tree goes before them.
    """
    for at, entry in enumerate(path):
        parts = entry.split("/")
        if (
            "site-packages" in parts
            or "dist-packages" in parts
            or entry.startswith(("/opt/python", "/var/runtime"))
        ):
            return at
    return len(path)


def _before_path_finder() -> int:
    from importlib.machinery import PathFinder

    return sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else len(sys.meta_path)


def _cache_folder(wanted: str) -> str:
    """Return ``wanted``, or a temporary folder if that can neither be written nor has anything for us.

    A folder that others can write to is refused: what lies there is executed.
    """
    try:
        os.makedirs(wanted, 0o700, exist_ok=True)
        found = os.stat(wanted)
    except OSError:
        return _temporary_folder() or _NO_FOLDER
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise ConfigurationError(
            f"cache folder {wanted} can be written by others (owner {found.st_uid}, mode "
            f"{stat.S_IMODE(found.st_mode):o}): run 'chmod 700 {wanted}' or set CLOUDIMPORT_CACHE"
        )
    writable = os.access(wanted, os.W_OK | os.X_OK) and not os.statvfs(wanted).f_flag & os.ST_RDONLY
    if writable or os.path.isdir(f"{wanted}/v1"):
        return wanted
    return _temporary_folder() or _NO_FOLDER


def _temporary_folder() -> str:
    """Return this process's temporary folder, "" if there is none to be had; it is removed at exit."""
    global _temporary
    if _temporary and _temporary[0] == os.getpid():
        return _temporary[1]
    import atexit
    import shutil
    import tempfile

    try:
        folder = tempfile.mkdtemp(prefix="cloudimport-")
    except OSError:
        return ""
    _temporary = owner, _ = os.getpid(), folder

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
