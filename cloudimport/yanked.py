"""What is done about yanked pins: a warning, or a refusal, by what the shelf's status says.

By default nothing on the way to an import waits for it: what is known from earlier is looked at by
``install()``, and the shelf is asked in the background, once imports are through (docs/decisions/0026).
Import budget: ``warnings`` when there is something to say. Nothing of this is loaded where the answer is
known and no pin is yanked.
"""

from __future__ import annotations

import sys
import time
from _thread import allocate_lock, start_new_thread

from cloudimport.environments import keep_status
from cloudimport.errors import (
    AbsentError,
    CloudImportError,
    DeniedError,
    FormatError,
    UnreachableError,
    YankedError,
    YankedWarning,
)
from cloudimport.format import keys
from cloudimport.format.status import Status
from cloudimport.ids import Pin
from cloudimport.settings import Settings
from cloudimport.sources.base import Source
from cloudimport.sources.clock import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: Bytes of a pointer, at the most (docs/format.md, section 2).
_MOST = 4 << 20
#: Imports are through when for so long (seconds) none has come and nothing is fetched; how often it is
#: looked for that before it is asked all the same.
_QUIET, _LOOKS = 0.25, 40
#: Seconds between looks whether the process was suspended while the answer was waited for.
_LOOK = 1.0
#: What ``warnings.warn`` is to point at in ``heed``: the caller of ``cloudimport.install``.
_CALLER = 5


def fetch_status(source: Source, cache_root: str) -> bytes:
    """Return what the shelf says of yanked pins, and keep it. Raises a FetchError or FormatError.

    That it does not say, since it has no such object or does not let it be read, is kept as well.
    """
    where = f"{source.url}/{keys.STATUS}"
    try:
        data = source.read(keys.STATUS)
        if len(data) > _MOST:
            raise FormatError(f"{where} is larger than a pointer can be")
        Status.decode(data, where)
    except (AbsentError, DeniedError, FormatError):
        keep_status(cache_root, source.url, b"")
        raise
    keep_status(cache_root, source.url, data)
    return data


class Asked:
    """The shelf's answer, which comes in a thread of its own while the index does."""

    def __init__(self, source: Source, cache_root: str) -> None:
        self._source, self._cache_root = source, cache_root
        self._data = b""
        self._error: CloudImportError | None = None
        self._came = allocate_lock()
        self._came.acquire()
        try:
            start_new_thread(self._ask, ())
        except RuntimeError:  # "can't start new thread"
            self._ask()

    def _ask(self) -> None:
        try:
            self._data = fetch_status(self._source, self._cache_root)
        except CloudImportError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001  # in a thread of its own there is nobody else to hear it
            self._error = UnreachableError(f"{self._source.url}/{keys.STATUS}: {error!r}", key=keys.STATUS)
        finally:
            self._came.release()

    def wait(self, seconds: float) -> bytes:
        """Return the answer. Raises a FetchError, also if it is not there in time, or FormatError."""
        until = clock.now() + seconds
        while True:
            began, wait = time.monotonic(), min(_LOOK, max(0.0, until - clock.now()))
            if self._came.acquire(timeout=wait):
                break
            clock.waited(began, wait)
            if clock.now() < until:
                continue
            where = f"{self._source.url}/{keys.STATUS}"
            raise UnreachableError(f"{where} did not come within {seconds:g} seconds", key=keys.STATUS)
        if self._error is not None:
            raise self._error
        return self._data


def heed(pins: Iterable[Pin], url: str, settings: Settings, known: bytes, asked: Asked | None) -> set[Pin]:
    """Warn of yanked pins, or refuse them, as the settings say; return those that were told.

    ``known`` is what was kept from earlier, ``asked`` the answer that is waited for. To be called by
    ``install`` alone. Raises YankedError, and a FetchError or FormatError if the settings want an answer.
    """
    if asked is not None:
        try:
            known = asked.wait(settings.deadline)
        except CloudImportError as error:
            if settings.needs_status:
                raise _unknown(error) from error
            _warn(f"whether pins are yanked is not known: {error}", _CALLER)
    found = _among(known, url, pins)
    if found and settings.yanked == "refuse":
        reasons = {str(pin): reason for pin, reason in found.items()}
        raise YankedError(f"{_told(found, url)}, or set CLOUDIMPORT_YANKED=warn", reasons)
    if found:
        _warn(_told(found, url), _CALLER)
    return set(found)


def _unknown(error: CloudImportError) -> CloudImportError:
    """Return an error of the same kind that says why it is one."""
    text = f"whether pins are yanked is not known, and CLOUDIMPORT_STATUS_UNKNOWN is refuse: {error}"
    return type(error)(text)


def _among(data: bytes, url: str, pins: Iterable[Pin]) -> Mapping[Pin, str]:
    """Return the yanked ones of ``pins``. What is kept was checked, by this version or a later one."""
    try:
        return Status.decode(data, f"{url}/{keys.STATUS}").among(pins) if data else {}
    except FormatError:
        return {}


def _told(found: Mapping[Pin, str], url: str) -> str:
    pins = "; ".join(f"{pin} is yanked: {reason}" for pin, reason in sorted(found.items()))
    return f"{pins} ({url}): publish a list without {'it' if len(found) == 1 else 'them'}"


def ask_later(
    source: Source,
    cache_root: str,
    pins: Iterable[Pin],
    told: set[Pin],
    is_busy: Callable[[], bool],
    is_over: Callable[[], bool],
) -> None:
    """Wait until imports are through, ask the shelf, and warn of yanked pins that were not ``told``.

    For a thread of its own. ``is_over`` says that nobody wants to know any more. Raises nothing of ours.
    """
    modules = len(sys.modules)
    for _ in range(_LOOKS):
        time.sleep(_QUIET)
        before, modules = modules, len(sys.modules)
        if is_over():
            return
        if before == modules and not is_busy():
            break
    try:
        data = fetch_status(source, cache_root)
    except CloudImportError:
        return  # a later process asks again
    found = {pin: reason for pin, reason in _among(data, source.url, pins).items() if pin not in told}
    if found and not is_over() and not sys.is_finalizing():
        _warn_aside(_told(found, source.url))


def _warn(text: str, stacklevel: int) -> None:
    import warnings

    warnings.warn(text, YankedWarning, stacklevel=stacklevel)


def _warn_aside(text: str) -> None:
    """Warn from a thread where an error would be nobody's: where warnings are errors it is a line of text."""
    try:
        _warn(text, 1)
    except YankedWarning:
        sys.stderr.write(f"cloudimport: {text}\n")
