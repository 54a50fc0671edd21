"""Import any PyPI package straight from object storage, as if it were pip-installed.

    import cloudimport

    cloudimport.install()
    import pandas  # fetched now

Import budget: nothing but this module's own errors; the rest comes with ``install``. No third party.
"""

from __future__ import annotations

from cloudimport.errors import (
    AbsentError,
    CloudImportError,
    ConfigurationError,
    CorruptError,
    DeniedError,
    FetchError,
    FormatError,
    NoSpaceError,
    NotPublishedError,
    SignatureError,
    UnreachableError,
    YankedError,
    YankedWarning,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeVar

    from cloudimport.bootstrap import Environment

    _F = TypeVar("_F", bound=Callable[..., Any])

__version__ = "0.1.0"
__all__ = [
    "AbsentError",
    "CloudImportError",
    "ConfigurationError",
    "CorruptError",
    "DeniedError",
    "FetchError",
    "FormatError",
    "NoSpaceError",
    "NotPublishedError",
    "SignatureError",
    "UnreachableError",
    "YankedError",
    "YankedWarning",
    "__version__",
    "install",
    "loaded",
    "requirements",
    "stats",
    "uninstall",
]


def install(
    requirements: str | None = None,
    *,
    shelf: str | None = None,
    lock: str | None = None,
    cache: str | None = None,
    local: Iterable[str] | None = None,
) -> Environment:
    """Make imports come from the shelf, for this process and its children; returns the environment.

    ``requirements``: path of a pinned requirements file; ``lock``: path of a ``cloudimport.lock``;
    ``shelf``: a folder, ``s3://bucket/prefix`` or any fsspec URL; ``cache``: a local folder;
    ``local``: names of packages of which a copy that is installed here comes before the shelf's. What is
    not given comes from ``CLOUDIMPORT_REQUIREMENTS``, ``CLOUDIMPORT_LOCK``, ``CLOUDIMPORT_SHELF``,
    ``CLOUDIMPORT_CACHE`` and ``CLOUDIMPORT_LOCAL`` (names with commas), else from the handler's folder and
    the user's data and cache folders.
    Calling it again for the same environment returns that.

    Raises ConfigurationError (a setting or file is wrong), NotPublishedError (the environment is
    not on the shelf), SignatureError (a root is set and has not signed it), YankedError (if
    ``CLOUDIMPORT_YANKED`` is ``refuse``), a FetchError (the shelf cannot be read) or FormatError.
    """
    from cloudimport import bootstrap

    return bootstrap.install(requirements, shelf=shelf, lock=lock, cache=cache, local=local)


def requirements(needs: Mapping[str, str]) -> Callable[[_F], _F]:
    """Say, as a decorator, what a function needs: ``@cloudimport.requirements({"requests": "2.32.3"})``.

    ``needs`` maps names of packages to a version, a range (``>=2,<3``), or "" for what is on the shelf.
    ``shelf run FILE`` runs the function in a sandbox of its own, and records what was found for it beside
    the file. Called as ever, the function has that installed first, unless an environment is.

    Raises ConfigurationError that names each name and version that is none; a call raises as ``install``.
    """
    from cloudimport import needing

    return needing.requirements(needs)


def uninstall() -> None:
    """Take the finder, the path entry, the hooks and the children's settings out again.

    Modules that are loaded stay loaded. Harmless when nothing is installed.
    """
    from cloudimport import bootstrap

    bootstrap.uninstall()


def stats() -> dict[str, float]:
    """Return what was fetched since ``install``: ``requests``, ``round_trips``, ``bytes_fetched``, …

    ``bytes_…`` are bytes, ``wait_seconds`` seconds; empty when nothing is installed. What went to disk are
    ``bytes_written`` (files) and ``bytes_cached`` (blocks), of which at most ``cache_limit`` are kept.
    """
    from cloudimport import bootstrap

    environment = bootstrap.current()
    return environment.stats() if environment else {}


def loaded() -> dict[str, str]:
    """Return which packages this process has loaded: ``name==version``, with the digest of its content.

    A package counts from its first import on (of one that failed, too), and in children not. What a digest
    covers is in docs/format.md, section 5; ``shelf sbom --loaded`` makes a bill of materials of it.
    """
    from cloudimport import bootstrap

    return bootstrap.loaded()


if not TYPE_CHECKING:  # else no misspelt name would be an error to type checkers

    def __getattr__(name):
        """Return the handler of a Lambda function, for ``cloudimport.handler`` (docs/layer.md)."""
        if name == "handler":
            from cloudimport import redirect

            if redirect.is_wanted():
                globals()[name] = redirect.handler()
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
