"""Which package indexes the curator uses, as pip is configured: for what is not fetched by pip itself.

``pip config list`` merges pip's files and variables, so that they need not be found and ranked here.
"""

from __future__ import annotations

import ast
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from shelf_tools import process

#: Seconds; pip starts in 0.4.
_TIMEOUT = 60.0
#: In the order in which later ones win (pip, "Configuration": command line, environment, files).
_SECTIONS = ("global", "download", ":env:")


class Indexes(NamedTuple):
    """Index URLs (``url`` of "" is the default index), and how they are reached.

    URLs may hold credentials: they are for programs, not for messages or records.
    """

    url: str = ""
    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    trusted_hosts: tuple[str, ...] = ()
    cert: str = ""
    client_cert: str = ""
    proxy: str = ""

    def for_uv(self) -> list[str]:
        """Return uv's arguments for the same indexes, searched as pip does: all of them."""
        found = ["--index-strategy=unsafe-best-match"]
        if self.no_index:
            found.append("--no-index")
        else:
            found += [f"--default-index={self.url}"] if self.url else []
            found += [f"--index={url}" for url in self.extra]
        found += [f"--find-links={place}" for place in self.find_links]
        return [*found, *(f"--allow-insecure-host={host}" for host in self.trusted_hosts)]


def read_indexes(env: Mapping[str, str], options: Sequence[str]) -> Indexes:
    """Return the indexes of pip's configuration and of a requirements file's options, which win.

    ``env`` is the curator's environment. Raises ProcessError if pip cannot be started.
    """
    argv = [sys.executable, "-I", "-m", "pip", "config", "list"]
    done = process.run(argv, timeout=_TIMEOUT, env={**env, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    settings: dict[str, dict[str, str]] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        try:
            found = str(ast.literal_eval(value))
        except (ValueError, SyntaxError):
            continue  # a warning of pip's, not a setting
        if found:  # pip skips empty ones
            settings.setdefault(section, {})[name] = found
    merged: dict[str, str] = {}
    for section in _SECTIONS:
        merged.update(settings.get(section, {}))
    return _with_options(merged, options)


def _with_options(settings: Mapping[str, str], options: Sequence[str]) -> Indexes:
    """Return settings with the lines of a requirements file in front of them or in their place."""
    lists = {
        name: settings.get(name, "").split() for name in ("extra-index-url", "find-links", "trusted-host")
    }
    url, no_index = (
        settings.get("index-url", ""),
        settings.get("no-index", "").lower() in ("1", "true", "yes", "on"),
    )
    for line in options:
        name, _, value = " ".join(shlex.split(line)).replace("=", " ", 1).partition(" ")
        name, value = _SHORT.get(name, name).removeprefix("--"), value.strip()
        if name in lists:
            lists[name].append(value)
        elif name == "index-url":
            url = value
        elif name == "no-index":
            no_index = True
    return Indexes(
        url,
        tuple(lists["extra-index-url"]),
        tuple(lists["find-links"]),
        no_index,
        tuple(lists["trusted-host"]),
        settings.get("cert", ""),
        settings.get("client-cert", ""),
        settings.get("proxy", ""),
    )


_SHORT = {"-i": "--index-url", "-f": "--find-links"}
