"""Settings: by argument, then environment, then defaults. The only reader of the environment.

Import budget: ``os``, ``sys``.
"""

from __future__ import annotations

import os
import sys

from cloudimport.errors import ConfigurationError
from cloudimport.ids import normalise_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

LOCK_NAME = "cloudimport.lock"
REQUIREMENTS_NAME = "requirements.txt"
#: Set for child interpreters by the parent; see cloudimport.site.children.
CHILD = "CLOUDIMPORT_CHILD"
#: A function's handler that stands for another, and the variable that names that (docs/layer.md).
REDIRECT, HANDLER = "cloudimport.handler", "CLOUDIMPORT_HANDLER"

#: Defaults in bytes. Lambda's /tmp has 512 MiB unless asked for more, and native files need most of it.
_CACHE_BYTES = 4 << 30
_CACHE_BYTES_LAMBDA = 128 << 20
_MEMORY_BYTES = 32 << 20
#: Default number of seconds within which a fetch, with all its retries, ends in success or an error.
_DEADLINE = 60.0
#: Default number of seconds for which what is known of yanked pins is good.
_STATUS_SECONDS = 300.0
#: Log levels by Lambda's names ("Setting log levels", AWS Lambda developer guide).
_LEVELS = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "FATAL": 50}
#: Characters of a namespace of metrics (MetricDatum, Amazon CloudWatch API reference).
_LONGEST_NAMESPACE = 255
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class Settings(NamedTuple):
    """What ``install`` goes by. Sizes in bytes, ``deadline`` in seconds; paths are absolute or "".

    ``native`` says whether the native helper is used where it was built; ``local`` names distributions
    (normalised) of which a local copy comes before the shelf's.
    """

    shelf: str
    requirements: str
    lock: str
    cache: str
    cache_bytes: int
    memory_bytes: int
    deadline: float
    environ: Mapping[str, str]
    native: bool = True
    local: tuple[str, ...] = ()
    #: Where a record of what this process needed is written when it ends, "" for none.
    trace: str = ""
    #: Whether garbage collection is held back while packages are imported.
    hold_gc: bool = False
    #: A folder of objects that other users of this host share, "" for none; it is read and never trusted.
    shared: str = ""
    #: Public keys (hexadecimal) of which one must have signed the environment or lock; none: the lock's.
    roots: tuple[str, ...] = ()
    #: What becomes of an environment with a yanked pin: ``warn``, ``refuse`` or ``ignore``.
    yanked: str = "ignore"
    #: For how many seconds what is known of that is good.
    status_seconds: float = _STATUS_SECONDS
    #: Whether an environment is refused, too, when the shelf does not say which pins are yanked.
    needs_status: bool = False
    #: What is said of a cold start, and how; see ``cloudimport.observing``.
    watching: Watching | None = None


class Watching(NamedTuple):
    """What is said of a cold start, once its imports are through."""

    #: Whether there is a line on standard error, and one more for each read of the store.
    line: bool
    reads: bool
    #: Namespace of the metrics in the line, "" for none.
    metrics: str
    #: A file that gets what was loaded, "" for none.
    loaded: str


def resolve(
    requirements: str | None = None,
    shelf: str | None = None,
    lock: str | None = None,
    cache: str | None = None,
    environ: Mapping[str, str] | None = None,
    local: Iterable[str] | None = None,
) -> Settings:
    """Return the settings; an argument wins over the environment, that over what is found.

    ``shelf`` is "" when neither says one: the lock may, else it is the default folder.
    Raises ConfigurationError when there are neither requirements nor a lock.
    """
    environ = dict(os.environ) if environ is None else environ
    lock_path = lock or environ.get("CLOUDIMPORT_LOCK") or ""
    requirements_path = requirements or environ.get("CLOUDIMPORT_REQUIREMENTS") or ""
    if not lock_path and not requirements_path:
        lock_path, requirements_path = _found(environ)
    return Settings(
        shelf or environ.get("CLOUDIMPORT_SHELF") or "",
        requirements_path and os.path.abspath(requirements_path),
        lock_path and os.path.abspath(lock_path),
        os.path.abspath(cache or environ.get("CLOUDIMPORT_CACHE") or default_cache(environ)),
        _size(environ, "CLOUDIMPORT_CACHE_SIZE", _CACHE_BYTES_LAMBDA if in_lambda(environ) else _CACHE_BYTES),
        _size(environ, "CLOUDIMPORT_MEMORY_SIZE", _MEMORY_BYTES),
        _seconds(environ, "CLOUDIMPORT_DEADLINE", _DEADLINE),
        environ,
        is_native(environ),
        _names(environ.get("CLOUDIMPORT_LOCAL", "").split(",") if local is None else local),
        _path(environ.get("CLOUDIMPORT_TRACE") or environ.get("CLOUDIMPORT_REPORT")),
        _switch(environ, "CLOUDIMPORT_HOLD_GC", "0"),
        _path(environ.get("CLOUDIMPORT_SHARED")),
        _roots(environ.get("CLOUDIMPORT_ROOT", "")),
        *_status(environ),
        _watching(environ),
    )


def _roots(text: str) -> tuple[str, ...]:
    """Return public keys, separated by commas or spaces. Raises ConfigurationError."""
    if not text:
        return ()
    from cloudimport.format.signing import parse_keys

    keys = parse_keys(text.replace(",", " ").split(), "CLOUDIMPORT_ROOT")
    if not keys:  # whoever sets it wants a check: nothing is no key
        raise ConfigurationError("CLOUDIMPORT_ROOT has no public key: see 'shelf key show FILE'")
    return keys


def _status(environ: Mapping[str, str]) -> tuple[str, float, bool]:
    """Return the three settings about yanked pins. Raises ConfigurationError."""
    yanked = _choice(environ, "CLOUDIMPORT_YANKED", ("warn", "refuse", "ignore"))
    seconds = _seconds(environ, "CLOUDIMPORT_STATUS_TTL", _STATUS_SECONDS)
    unknown = _choice(environ, "CLOUDIMPORT_STATUS_UNKNOWN", ("go-on", "refuse"))
    if unknown == "refuse" and yanked != "refuse":
        raise ConfigurationError(
            f"CLOUDIMPORT_STATUS_UNKNOWN=refuse needs CLOUDIMPORT_YANKED=refuse, which is {yanked!r}"
        )
    return yanked, seconds, unknown == "refuse"


def _watching(environ: Mapping[str, str]) -> Watching | None:
    """Return what is to be said of a cold start, None for nothing. Raises ConfigurationError."""
    metrics, loaded = environ.get("CLOUDIMPORT_METRICS", "").strip(), environ.get("CLOUDIMPORT_LOADED")
    if metrics.startswith("AWS/") or len(metrics) > _LONGEST_NAMESPACE:
        raise ConfigurationError(f"CLOUDIMPORT_METRICS={metrics!r} is no namespace that CloudWatch takes")
    wanted = _switch(environ, "CLOUDIMPORT_LOG", "1" if metrics or in_lambda(environ) else "0")
    level = _level(environ)
    line = wanted and (level <= _LEVELS["INFO"] or bool(metrics))
    reads = wanted and level <= _LEVELS["DEBUG"]
    return Watching(line, reads, metrics, _path(loaded)) if line or loaded else None


def _level(environ: Mapping[str, str]) -> int:
    """Return the log level: Lambda's variable, or ours over it. Raises ConfigurationError."""
    text = environ.get("CLOUDIMPORT_LOG_LEVEL", "").strip()
    if text.upper() not in ("", *_LEVELS):
        raise ConfigurationError(f"CLOUDIMPORT_LOG_LEVEL={text!r} is none of {', '.join(_LEVELS)}")
    given = text or environ.get("AWS_LAMBDA_LOG_LEVEL", "").strip()
    return _LEVELS.get(given.upper(), _LEVELS["INFO"])


def _path(text: str | None) -> str:
    return os.path.abspath(text) if text else ""


def is_native(environ: Mapping[str, str]) -> bool:
    """Whether the native helper is wanted, where it was built. Raises ConfigurationError."""
    return _switch(environ, "CLOUDIMPORT_NATIVE")


def in_lambda(environ: Mapping[str, str]) -> bool:
    """Whether this is AWS Lambda (its documented reserved environment variables)."""
    return "AWS_LAMBDA_FUNCTION_NAME" in environ


def handler_name(environ: Mapping[str, str]) -> str:
    """Return the handler that the redirect stands for, "" if none is named."""
    name = environ.get(HANDLER, "").strip()
    return "" if name == REDIRECT else name


def is_redirected(environ: Mapping[str, str]) -> bool:
    """Whether somebody may ask for ``cloudimport.handler``: in Lambda, or where a handler is named."""
    return HANDLER in environ or in_lambda(environ)


def default_shelf(environ: Mapping[str, str]) -> str:
    """Return the shelf in the user's data folder (XDG Base Directory)."""
    return os.path.join(_home_folder(environ, "XDG_DATA_HOME", ".local/share"), "cloudimport", "shelf")


def default_cache(environ: Mapping[str, str]) -> str:
    """Return the cache in the user's cache folder (XDG), in Lambda below /tmp."""
    if in_lambda(environ):
        return "/tmp/cloudimport"
    return os.path.join(_home_folder(environ, "XDG_CACHE_HOME", ".cache"), "cloudimport")


def _home_folder(environ: Mapping[str, str], variable: str, below: str) -> str:
    folder = environ.get(variable, "")
    if os.path.isabs(folder):
        return folder
    home = environ.get("HOME") or os.path.expanduser("~")
    if not os.path.isabs(home):
        raise ConfigurationError(
            f"there is no home folder: set HOME, {variable}, or CLOUDIMPORT_SHELF and CLOUDIMPORT_CACHE"
        )
    return os.path.join(home, below)


def handler_folder(environ: Mapping[str, str]) -> str:
    """Return the handler's folder: Lambda's task root, else that of ``__main__``, else the current one."""
    task_root = environ.get("LAMBDA_TASK_ROOT")
    if task_root:
        return task_root
    # multiprocessing imports the parent's main module under this name, from a `python -c`.
    module = sys.modules.get("__mp_main__") or sys.modules.get("__main__")
    main = getattr(module, "__file__", None)
    return os.path.dirname(os.path.abspath(main)) if main else os.getcwd()


def _found(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the (lock, requirements) next to the handler; a lock comes with the requirements beside it."""
    folder = handler_folder(environ)
    paths = [os.path.join(folder, name) for name in (LOCK_NAME, REQUIREMENTS_NAME)]
    lock, requirements = (path if os.path.isfile(path) else "" for path in paths)
    if not lock and not requirements:
        raise ConfigurationError(
            f"neither {LOCK_NAME} nor {REQUIREMENTS_NAME} is in {folder}: "
            "pass install('requirements.txt') or set CLOUDIMPORT_REQUIREMENTS or CLOUDIMPORT_LOCK"
        )
    return lock, requirements


def _size(environ: Mapping[str, str], variable: str, default: int) -> int:
    text = environ.get(variable, "").strip().lower()
    if not text:
        return default
    number, unit = (text[:-1], text[-1]) if text[-1] in _UNITS else (text, "")
    try:
        return int(number) * _UNITS[unit]
    except ValueError:
        raise ConfigurationError(f"{variable}={text!r} is not a size: write bytes, or 512M, or 2G") from None


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(normalise_name(name.strip()) for name in names if name.strip())


def _switch(environ: Mapping[str, str], variable: str, default: str = "1") -> bool:
    text = environ.get(variable, "").strip() or default
    if text not in ("0", "1"):
        raise ConfigurationError(f"{variable}={text!r} is neither 0 nor 1")
    return text == "1"


def _choice(environ: Mapping[str, str], variable: str, choices: tuple[str, ...]) -> str:
    """Return one of ``choices``, of which the first is the default. Raises ConfigurationError."""
    text = environ.get(variable, "").strip() or choices[0]
    if text not in choices:
        raise ConfigurationError(f"{variable}={text!r} is none of {', '.join(choices)}")
    return text


def _seconds(environ: Mapping[str, str], variable: str, default: float) -> float:
    text = environ.get(variable, "").strip()
    try:
        seconds = float(text or default)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86400:
        raise ConfigurationError(f"{variable}={text!r} is not a number of seconds")
    return seconds
