"""Every error that cloudimport raises on purpose, under one root.

Import budget: nothing. Absent, corrupt and unreachable are three different things and three
different types; none of them is a ``ModuleNotFoundError``, so ``except ModuleNotFoundError``
never swallows an outage.
"""

from __future__ import annotations


class CloudImportError(Exception):
    """The root of the project's errors. Its text is one line for a person."""


class ConfigurationError(CloudImportError):
    """A setting, a requirements file or a lockfile is missing, malformed or contradictory."""


class FormatError(CloudImportError):
    """A record does not follow docs/format.md, or is of a newer format version."""


class SignatureError(CloudImportError):
    """A root is set, and an environment or a lockfile is not signed by it, or not as it stands.

    Its bytes are whole: they are just not what somebody who may say so has approved.
    """


class NotPublishedError(CloudImportError):
    """Pins (or a whole environment) are not on the shelf.

    ``missing`` names them; the text says which command publishes them.
    """

    def __init__(self, message: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing


class YankedError(CloudImportError):
    """Pins of the environment were yanked, and the settings refuse such.

    ``yanked`` maps each, as ``name==version``, to the reason that the curator gave.
    """

    def __init__(self, message: str, yanked: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.yanked = yanked or {}


class YankedWarning(UserWarning):
    """Pins of the environment were yanked; the text has the curator's reasons."""


class FetchError(CloudImportError, ImportError):
    """Bytes could not be had from the shelf.

    ``key`` is the object's key below the shelf's root; ``package`` the ``name==version`` it
    belongs to, or "".
    """

    retryable = False

    def __init__(self, message: str, *, key: str = "", package: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.package = package


class AbsentError(FetchError):
    """The store says that there is no such object (404)."""


class DeniedError(FetchError):
    """The store refuses access (403), or the credentials are missing or wrong.

    S3 answers 403 for a missing key too when the caller may not list the bucket. The text names the package,
    and on S3 what to grant.
    """


class UnreachableError(FetchError):
    """The store did not answer in time, broke off, or answered with an error of its own (5xx)."""

    retryable = True
    #: Whether it asked to come back later: it is there, and others are being served.
    throttled = False


class CorruptError(FetchError):
    """Bytes have the wrong digest or size. ``expected`` and ``actual`` are digests or sizes."""

    retryable = True

    def __init__(
        self, message: str, *, key: str = "", package: str = "", expected: str = "", actual: str = ""
    ) -> None:
        super().__init__(message, key=key, package=package)
        self.expected = expected
        self.actual = actual


class NoSpaceError(CloudImportError, ImportError):
    """A native file, which has to be on a disk, has no room there, even without the cached blocks.

    ``path`` is the file, ``needed`` its size and ``free`` what is free there in bytes, ``package`` the
    ``name==version`` that needs it.
    """

    def __init__(self, message: str, *, package: str = "", needed: int = 0, free: int = 0) -> None:
        super().__init__(message)
        self.package = package
        self.needed = needed
        self.free = free
