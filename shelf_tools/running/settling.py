"""Environments for functions: as they were recorded beside the file, or chosen from the shelf and recorded.

An index is made on this machine, of builds of the shelf: that takes no right to write there. It lies, with
the packs that it leads to, in the cache (``depot``), from where sandboxes read it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cloudimport import needing
from cloudimport.errors import ConfigurationError, FetchError, FormatError, YankedError
from cloudimport.format import keys
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.lock import Lock
from cloudimport.format.records import Ref
from cloudimport.format.runlock import Found, Recorded, RunLock
from cloudimport.ids import Pin, Target
from cloudimport.settings import Settings
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.catalogue import Catalogue
from shelf_tools.choosing import choose
from shelf_tools.compressing import decompress_record
from shelf_tools.environments import open_shelf, publish_environment
from shelf_tools.indexing import Built, build_index
from shelf_tools.mirror import fill, packs
from shelf_tools.running.depot import Depot
from shelf_tools.status import Mark, read_marks
from shelf_tools.store import Store, open_store
from shelf_tools.swap import write_file
from shelf_tools.trust import check_signed


class Ready(NamedTuple):
    """An environment that can be installed: its lock for one target, and the index as it is stored."""

    lock: Lock
    target: str
    stored: bytes

    @property
    def pins(self) -> tuple[str, ...]:
        """What is in it, as ``name==version``."""
        return self.lock.requirements

    @property
    def ref(self) -> Ref:
        """Where its index is."""
        return self.lock.targets[self.target]


class Asked(NamedTuple):
    """What to settle: the file, what its functions need (each with the line that says so), for which targets
    (best first), and how. ``known`` is what any function of the file needs: records of others go.

    ``update``: what was recorded does not count. ``publish``: the environments go to the shelf, too.
    """

    path: Path
    needs: Mapping[tuple[str, ...], int]
    targets: Sequence[Target]
    known: Collection[tuple[str, ...]]
    update: bool = False
    publish: bool = False


class Settler:
    """Settles what functions need against one shelf; ``note`` hears a line on what a person should know."""

    def __init__(
        self, url: str, said: bool, settings: Settings, depot: Depot, note: Callable[[str], None]
    ) -> None:
        self._store: Store = open_store(url, settings.environ)
        self._source: Source = open_source(
            url, SourceConfig(environ=settings.environ, deadline=settings.deadline)
        )
        self._url, self._said = url, said
        self._settings, self._depot, self._note = settings, depot, note

    def close(self) -> None:
        """Drop connections."""
        self._source.close()

    def settle(self, asked: Asked) -> dict[tuple[str, ...], Ready]:
        """Return an environment for each of the needs, and record what was chosen beside the file.

        Raises ConfigurationError with all names and versions that are wrong, one a line, YankedError, a
        FetchError, FormatError, SignatureError, or OSError.
        """
        path = asked.path.with_name(asked.path.name + needing.RECORD)
        before = _read_record(path, asked)
        marks = self._marks()
        catalogue = Catalogue(self._store, self._source, marks)
        recorded = {needs: self._recorded(before, needs, asked.targets) for needs in asked.needs}
        new = [needs for needs, one in recorded.items() if one is None]
        chosen = self._choose(catalogue, new, asked) if new else {}
        ready, found = {}, {}
        for needs in asked.needs:
            target, contents, ref = recorded[needs] or (*chosen[needs], None)
            self._heed(contents, marks)
            ready[needs], found[needs] = self._made(catalogue, target, contents, ref, asked.publish)
        after = _merged(before, found, self._url if self._said else "")
        if after.encode() != before.encode():
            self._record(path, after)
        return ready

    def fill(self, ready: Collection[Ready]) -> dict[str, list[str]]:
        """Fetch the packs of environments to this machine, each once.

        Returns for each, by the digest of its index, the keys of all that it consists of. Raises a FetchError
        or OSError.
        """
        plain = {one.ref: decompress_record(one.stored, "index") for one in ready}
        needed = {ref: list(packs(self._source, EnvironmentIndex(plain[ref], ref))) for ref in plain}

        def tell(missing: int) -> None:
            if missing:
                self._note(f"{missing} of the packs are fetched from {self._url}, once")

        wanted = {one.key: one for some in needed.values() for one in some}
        with self._depot.telling():
            fill(self._depot.folder, list(wanted.values()), tell, lambda _: None)
            for key in wanted:  # when they were of use
                os.utime(self._depot.folder / key)
        return {
            ref.digest: list(dict.fromkeys([keys.environment_index(ref.digest), *(one.key for one in some)]))
            for ref, some in needed.items()
        }

    def _marks(self) -> dict[Pin, Mark]:
        """Return what is yanked, as far as it is to be heeded and can be known."""
        if self._settings.yanked == "ignore":
            return {}
        try:
            return read_marks(self._store, self._note)
        except FetchError as error:
            if self._settings.yanked == "refuse":
                raise
            self._note(f"which pins are yanked is not known: {error}")
            return {}

    def _heed(self, pins: Collection[Pin], marks: Mapping[Pin, Mark]) -> None:
        reasons = {str(pin): marks[pin].reason for pin in sorted(pins) if pin in marks}
        lines = [f"{pin} is yanked: {reason}" for pin, reason in reasons.items()]
        if lines and self._settings.yanked == "refuse":
            raise YankedError("\n".join(lines), reasons)
        for line in lines:
            self._note(f"{line}; 'shelf run --update' takes another version, if there is one that fits")

    @staticmethod
    def _recorded(
        before: RunLock, needs: tuple[str, ...], targets: Sequence[Target]
    ) -> tuple[Target, dict[Pin, str], Ref] | None:
        found = before.found(needs)
        return next(
            (
                (one, found[str(one)].contents, found[str(one)].environment)
                for one in targets
                if str(one) in found
            ),
            None,
        )

    def _choose(
        self, catalogue: Catalogue, needs: Collection[tuple[str, ...]], asked: Asked
    ) -> dict[tuple[str, ...], tuple[Target, dict[Pin, str]]]:
        """Choose for each of the needs; all that is wrong with any of them is told together."""
        if self._store.read_versioned(keys.SHELF) is None:
            raise ConfigurationError(f"{self._url} is no shelf: it has no {keys.SHELF}; publish to it first")
        problems = catalogue.problems({line for one in needs for line in one}, asked.targets)
        wrong = [
            f"{asked.path}:{asked.needs[one]}: {problems[line]}"
            for one in sorted(needs, key=lambda one: asked.needs[one])
            for line in one
            if line in problems
        ]
        if wrong:
            raise ConfigurationError("\n".join(wrong))
        return {one: self._chosen(catalogue, one, asked.targets) for one in needs}

    def _chosen(
        self, catalogue: Catalogue, lines: tuple[str, ...], targets: Sequence[Target]
    ) -> tuple[Target, dict[Pin, str]]:
        """Choose for the first target for which that can be done; else raise what was wrong with the best."""
        errors = []
        for target in targets:
            if any(catalogue.problems([line], [target]) for line in lines):
                continue
            try:
                pins = choose(lines, catalogue, target)
            except ConfigurationError as error:
                errors.append(error)
                continue
            return target, {pin: catalogue.build(pin, target).content_digest for pin in pins}
        if errors:
            raise errors[0]
        listed = ", ".join(lines)
        raise ConfigurationError(f"for no target that this takes {self._url} has all of {listed} together")

    def _made(
        self,
        catalogue: Catalogue,
        target: Target,
        contents: Mapping[Pin, str],
        ref: Ref | None,
        publish: bool,
    ) -> tuple[Ready, tuple[Target, Found]]:
        """Return an environment with its index, which is made if it is not there."""
        lines = tuple(sorted(map(str, contents)))
        data = (
            self._depot.index(ref) if ref is not None and not self._settings.roots and not publish else None
        )
        if ref is None or data is None:
            builds = self._builds(catalogue, target, contents)
            if publish:
                open_shelf(self._store)
                publish_environment(self._store, self._source, lines, target, builds, self._note)
            ref, data = self._depot.keep(build_index(builds, lines, target, self._note))
        lock = Lock(self._url, lines, {str(target): ref}, {})
        return Ready(lock, str(target), data), (target, Found(ref, dict(contents)))

    def _builds(self, catalogue: Catalogue, target: Target, contents: Mapping[Pin, str]) -> list[Built]:
        builds = catalogue.builds(list(contents), target)
        for pin, built in zip(contents, builds, strict=True):
            if built.content_digest != contents[pin]:
                raise FormatError(
                    f"{pin} on {self._url} has another content than was recorded "
                    f"({built.content_digest[:12]}, not {contents[pin][:12]}): 'shelf run --update' takes it"
                )
            if self._settings.roots:
                check_signed(self._source, built, self._settings.roots)
        return builds

    def _record(self, path: Path, record: RunLock) -> None:
        try:
            write_file(path, record.encode())
        except OSError as error:
            self._note(f"what was chosen is not recorded, {path} cannot be written: {error.strerror}")


def _read_record(path: Path, asked: Asked) -> RunLock:
    """Return what is recorded and still of use. Raises ConfigurationError if it cannot be read."""
    try:
        found = RunLock.decode(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return RunLock("", ())
    except ConfigurationError:
        if not asked.update:
            raise
        return RunLock("", ())
    dropped = set(asked.needs) if asked.update else set()
    kept = [one for one in found.environments if one.needs in asked.known and one.needs not in dropped]
    return found._replace(environments=tuple(kept))


def _merged(before: RunLock, found: Mapping[tuple[str, ...], tuple[Target, Found]], url: str) -> RunLock:
    """Return a record with what was found now; what it had for others stays."""
    rows = {one.needs: dict(one.targets) for one in before.environments}
    for needs, (target, one) in found.items():
        rows.setdefault(needs, {})[str(target)] = one
    return RunLock(url or before.shelf, tuple(Recorded(needs, rows[needs]) for needs in sorted(rows)))
