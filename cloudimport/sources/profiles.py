"""AWS profiles: the shared credentials and config files.

Rules: "Shared config and credentials files", AWS SDKs and tools reference guide. Import
budget: ``os``; ``configparser`` when a file is there.
"""

from __future__ import annotations

import os

from cloudimport.errors import DeniedError
from cloudimport.sources.config import SourceConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Profiles:
    """The profile in force, read from the files again with each call of ``settings``."""

    def __init__(self, config: SourceConfig) -> None:
        self._environ = config.environ
        by_environ = config.environ.get("AWS_PROFILE") or config.environ.get("AWS_DEFAULT_PROFILE")
        self._named = config.profile or by_environ
        self.name = self._named or "default"

    def settings(self) -> Mapping[str, str]:
        """Return the profile's settings, the credentials file's over the config file's.

        Raises DeniedError if a profile that was asked for by name is in neither file.
        """
        found: dict[str, str] = {}
        section = self.name if self.name == "default" else f"profile {self.name}"
        is_known = False
        for path, name in ((self.path("config"), section), (self.path("credentials"), self.name)):
            values = _section(path, name)
            is_known |= values is not None
            found.update(values or {})
        if self._named and not is_known:
            files = f"{self.path('config')} or {self.path('credentials')}"
            raise DeniedError(f"there is no AWS profile {self.name!r} in {files}")
        return found

    def path(self, which: str) -> str:
        """Return the path of the ``config`` or ``credentials`` file."""
        variable = "AWS_CONFIG_FILE" if which == "config" else "AWS_SHARED_CREDENTIALS_FILE"
        path = self._environ.get(variable) or f"~/.aws/{which}"
        return path.replace("~", self._environ.get("HOME", "~"), 1) if path.startswith("~/") else path


def _section(path: str, name: str) -> dict[str, str] | None:
    if not os.path.isfile(path):
        return None
    from configparser import Error, RawConfigParser

    # No default section: a profile may be called DEFAULT.
    parser = RawConfigParser(default_section="\0", strict=False)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeDecodeError, Error) as error:
        raise DeniedError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    return dict(parser[name]) if name in parser else None
