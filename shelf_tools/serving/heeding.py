"""Yanked pins of a function: the server asks the shelf for all sandboxes, when one is started."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from cloudimport.errors import AbsentError, CloudImportError, YankedError
from cloudimport.format import codec, keys
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.records import Ref
from cloudimport.format.status import Status
from cloudimport.ids import Pin
from cloudimport.settings import Settings
from cloudimport.sources.base import Source


def pins_of(folder: Path, ref: Ref) -> list[Pin]:
    """Return the pins of an environment whose index is in a tier. Raises FormatError or OSError."""
    data = (folder / keys.environment_index(ref.digest)).read_bytes()
    return [build.pin for build in EnvironmentIndex(codec.decompress(data, ref.size), ref).builds]


class Heeding:
    """What is done about yanked pins of the function ``name``, by its ``settings``.

    ``say`` gets a line about each, once. May be used by several threads.
    """

    def __init__(
        self, name: str, pins: list[Pin], source: Source, settings: Settings, say: Callable[[str], None]
    ) -> None:
        self._name, self._pins, self._source, self._settings, self._say = name, pins, source, settings, say
        self._lock = threading.Lock()
        self._found: dict[Pin, str] = {}
        self._until = 0.0
        self._told: set[str] = set()

    def look(self) -> None:
        """Ask the shelf if what it said is too old. Raises YankedError; a FetchError or FormatError if the
        settings want an answer.
        """
        if self._settings.yanked == "ignore":
            return
        with self._lock:
            if time.monotonic() >= self._until:
                self._found = self._asked()
                self._until = time.monotonic() + self._settings.status_seconds
            reasons = {str(pin): reason for pin, reason in sorted(self._found.items())}
            lines = [f"{self._name}: {pin} is yanked: {reason}" for pin, reason in reasons.items()]
            if lines and self._settings.yanked == "refuse":
                raise YankedError("; ".join(lines), reasons)
            self._tell(lines)

    def _asked(self) -> dict[Pin, str]:
        try:
            status = Status.decode(self._source.read(keys.STATUS), f"{self._source.url}/{keys.STATUS}")
        except AbsentError:
            return {}
        except CloudImportError as error:
            if self._settings.needs_status:
                raise
            self._tell([f"{self._name}: which pins are yanked is not known: {error}"])
            return self._found
        return status.among(self._pins)

    def _tell(self, lines: list[str]) -> None:
        for line in lines:
            if line not in self._told:
                self._told.add(line)
                self._say(line)
