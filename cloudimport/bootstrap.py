"""Where the runtime is put in place: what ``parts`` has, finders, path, patches, children; and out again.

Import budget: 30 ms of CPU for ``import cloudimport`` and ``install()`` without network; no third party.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import start_new_thread
from types import ModuleType

from cloudimport import settings as settings_module
from cloudimport.environments import cached_status, from_lock, from_shelf, read_lock
from cloudimport.errors import ConfigurationError, SignatureError
from cloudimport.format import codec
from cloudimport.format.records import Ref
from cloudimport.ids import Pin, running_targets
from cloudimport.importer.finder import ShelfFinder, path_hook, teach_pkgutil
from cloudimport.importer.forks import forget_others
from cloudimport.importer.places import finder_position, path_position
from cloudimport.parts import Parts, child_record, of_parent, open_tree
from cloudimport.settings import Settings
from cloudimport.site.children import Children
from cloudimport.site.native import Helper, load
from cloudimport.site.patches import Patches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from cloudimport.format.lock import Lock
    from cloudimport.observing import Observer

#: What is kept where no pin is yanked (docs/format.md, section 4), and where the shelf did not say.
_NOTHING_YANKED = (b'{"format":1,"kind":"status","yanked":{}}', b"")
#: How long after the first import the background begins to look whether the shelf may be asked for its
#: status (seconds).
_STATUS_PAUSE = 0.25


class Environment:
    """What ``install`` returns: the environment that imports now come from."""

    def __init__(
        self,
        parts: Parts,
        finder: ShelfFinder,
        hook: Any,
        patches: Patches,
        children: Children,
        helper: Helper | None,
    ) -> None:
        self._parts = parts
        self._finder, self._hook, self._patches, self._children = finder, hook, patches, children
        self._helper = helper
        self._inherited = False
        self._held: int | None = None

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
        """Return counts since ``install``: ``bytes_fetched`` on the wire, ``wait_seconds`` in seconds.

        To disk went ``bytes_written`` (files of the site tree) and ``bytes_cached`` (blocks, and the index),
        of which no more than ``cache_limit`` are kept.
        """
        counting = self._parts.counting
        found = {
            "requests": counting.requests,
            "bytes_fetched": counting.bytes,
            **self._parts.counters.snapshot(),
            "cache_limit": self._parts.settings.cache_bytes,
        }
        for name, count in self._helper.counts().items() if self._helper else ():
            found[name] += count
        return found

    def __repr__(self) -> str:
        return f"<cloudimport environment of {len(self.pins)} packages for {self.target} from {self.shelf}>"


_current: Environment | None = None
_fork_registered = False


def install(
    requirements_file: str | None = None,
    *,
    shelf: str | None = None,
    lock: str | None = None,
    cache: str | None = None,
    local: Iterable[str] | None = None,
    locked: Lock | None = None,
) -> Environment:
    """Install the environment of a lockfile or requirements file; see ``cloudimport.install``."""
    began = time.monotonic()
    inherited = _current if _current is not None and _current._inherited else None
    try:
        settings = settings_module.resolve(requirements_file, shelf, lock, cache, local=local)
    except ConfigurationError:
        if inherited is None or requirements_file or lock:
            raise
        return inherited  # a child need not find what its parent has found
    targets = running_targets()
    locked = _read_lock(settings, locked)
    url = (
        settings.shelf or (locked.shelf if locked else "") or settings_module.default_shelf(settings.environ)
    )
    parts = Parts(settings, url)
    try:
        ref, target = (
            from_lock(locked, settings, targets) if locked else from_shelf(parts.source, settings, targets)
        )
        if _current is not None:
            if _current.digest == ref.digest and _current.shelf == parts.counting.url:
                return _current
            if inherited is None:
                raise ConfigurationError(
                    "another environment is installed: call cloudimport.uninstall() first"
                )
            uninstall()
        known, is_good = _known_status(parts)
        asked = None
        if settings.yanked == "refuse" and not is_good:
            from cloudimport.yanked import Asked

            asked = Asked(parts.status_source(), parts.cache_root)
        parts.open_index(ref, target, boot=locked.boots.get(target, ()) if locked else ())
        told: set[Pin] = set()
        if asked is not None or known not in _NOTHING_YANKED:
            from cloudimport.yanked import heed

            told = heed(parts.pins(), parts.counting.url, settings, known, asked)
        environment = _activate(parts, ref, target)
        if not is_good:
            _ask_later(environment, told)
        _observe(environment, time.monotonic() - began)
        return environment
    finally:
        if _current is None or _current._parts is not parts:
            parts.fetcher.close()


def _read_lock(settings: Settings, locked: Lock | None) -> Lock | None:
    """Return the lock, if there is one: ``locked`` if the file is a record of ``shelf run``, or its own."""
    if locked is None:
        return read_lock(settings) if settings.lock else None
    if settings.roots:
        raise SignatureError(f"{settings.lock} is not signed, and CLOUDIMPORT_ROOT wants a signature")
    return locked


def _known_status(parts: Parts) -> tuple[bytes, bool]:
    """Return what was kept of the shelf's status, and whether that is good enough not to ask again."""
    settings = parts.settings
    if settings.yanked == "ignore":
        return b"", True
    data, age = cached_status(parts.cache_root, parts.counting.url) or (b"", -1.0)
    is_answer = bool(data) or settings.yanked == "warn"
    return data, is_answer and 0 <= age < settings.status_seconds


def _ask_later(environment: Environment, told: set[Pin]) -> None:
    """Have the shelf asked for yanked pins, in the background and after the imports that begin then."""
    parts = environment._parts
    if parts.settings.yanked == "warn" and parts.recorder is None:
        environment._finder.before_first(lambda: _begin_asking(environment, told))


def _begin_asking(environment: Environment, told: set[Pin]) -> None:
    try:
        start_new_thread(_ask, (environment, told))
    except RuntimeError:
        pass  # "can't start new thread": another process asks


def _observe(environment: Environment, installing: float) -> None:
    """Have it told, if that is wanted, what the cold start was like; ``install()`` took so many seconds."""
    parts = environment._parts
    watching, bursts = parts.settings.watching, parts.bursts
    if watching is None or bursts is None:
        return
    from cloudimport.telling import Telling

    def make() -> Observer:
        from cloudimport.observing import Observer

        environ = parts.settings.environ
        return Observer(
            watching, environ, parts.tree, environment.shelf, bursts, environment.stats, installing
        )

    telling = Telling(make, parts.fetcher, lambda: environment is not _current)
    in_lambda = settings_module.in_lambda(parts.settings.environ)
    environment._finder.before_first(lambda: telling.begin(in_lambda=in_lambda))


def _ask(environment: Environment, told: set[Pin]) -> None:
    try:
        time.sleep(_STATUS_PAUSE)  # before anything is loaded for it
        from cloudimport.yanked import ask_later

        parts = environment._parts
        ask_later(
            parts.status_source(),
            parts.cache_root,
            parts.pins(),
            told,
            lambda: parts.fetcher.is_busy,
            lambda: environment is not _current,
        )
    except Exception:  # noqa: BLE001
        pass  # nobody waits for it, and a process that ends takes modules away


def install_child(record: Mapping[str, Any]) -> Environment:
    """Install what a parent installed (cloudimport/site/bootstrap)."""
    codec.locate(record["codec"])
    parts = of_parent(record)
    environment = _activate(parts, Ref(*record["index"]), record["target"])
    environment._inherited = True
    return environment


def _activate(parts: Parts, ref: Ref, target: str) -> Environment:
    """Put finders, path, patches and children in place. Everything that can fail came before."""
    global _current
    held = open_tree(parts)
    record = child_record(parts, ref, target)
    patches = Patches(parts.tree)
    finder, hook = ShelfFinder(parts.tree, _watched(patches), parts.bursts), path_hook(parts.tree)
    children = Children(record, os.environ)
    helper = load() if parts.settings.native else None
    _forget_importers(parts.tree.root)
    sys.path_hooks.insert(0, hook)
    if parts.tree.root not in sys.path:  # a child may have it from ``PYTHONPATH``
        sys.path.insert(path_position(sys.path), parts.tree.root)
    sys.meta_path.insert(finder_position(), finder)
    patches.install()
    if helper is not None:
        helper.install(parts.tree.root, parts.index.data, record, parts.settings.environ)
        parts.tree.attend(helper.touched, helper.touch)
    children.install()
    _register_fork()
    _current = Environment(parts, finder, hook, patches, children, helper)
    _current._held = held
    if parts.recorder is not None:
        parts.recorder.start(parts.tree, _current.stats)
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
    if environment._parts.recorder is not None:
        environment._parts.recorder.stop()
    environment._children.uninstall()
    if environment._helper is not None:
        environment._helper.uninstall()
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
    environment._parts.fetcher.close()
    if environment._held is not None:
        os.close(environment._held)


def loaded() -> dict[str, str]:
    """Return what was loaded of the installed environment; see ``cloudimport.loaded``."""
    if _current is None:
        return {}
    from cloudimport import observing

    return observing.loaded(_current._parts.tree)


def current() -> Environment | None:
    """Return the installed environment, or None."""
    return _current


def _register_fork() -> None:
    global _fork_registered
    if not _fork_registered:
        _fork_registered = True
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    if _current is not None:
        forget_others()
        _current._parts.forget()
