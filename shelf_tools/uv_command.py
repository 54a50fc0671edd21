"""Running uv: what it says becomes one clear line each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cloudimport.errors import CloudImportError, ConfigurationError
from shelf_tools import process

#: Seconds for one resolution over a slow network.
_TIMEOUT = 900.0
#: What uv, older and newer, draws around its messages.
_DRAWN = str.maketrans("", "", "×╰─▶│├╭╮╯⚠")
_BEGINS = re.compile(r"(?P<kind>error|warning|hint|cause|caused by):\s*", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
#: Steps of an error's way through uv's libraries, which say nothing that the ends do not.
_STEPS = re.compile(
    r"error sending request for url|client error \(|tcp connect error|dns error|error resolving"
)
_USAGE = ("Usage:", "For more information", "Resolved ", "Exported ", "Using ")


class UvError(CloudImportError):
    """uv could not do what was asked; one line each."""


def run_uv(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """Run uv with an environment; return what it printed, and its warnings, one line each.

    Raises UvError with what it says, ConfigurationError if uv is not installed.
    """
    try:
        from uv import find_uv_bin

        command = find_uv_bin()
    except (ImportError, FileNotFoundError):
        raise ConfigurationError("uv is not installed: pip install 'cloudimport[shelf]'") from None
    argv = [command, *arguments, "--color=never", "--no-progress", "--no-python-downloads"]
    try:
        done = process.run(argv, timeout=_TIMEOUT, env={**environ, "LC_ALL": "C.UTF-8"})
    except process.ProcessTimeout:
        raise UvError(f"uv did not finish within {_TIMEOUT:.0f} s") from None
    except process.ProcessError as error:
        raise UvError(str(error)) from None
    errors, warnings = messages(done.stderr.decode("utf-8", "replace"))
    if done.returncode:
        raise UvError("\n".join(errors) or f"uv failed: {done.reason()}")
    return done.stdout.decode("utf-8"), warnings


def messages(said: str) -> tuple[list[str], list[str]]:
    """Return uv's (errors, warnings), each in one line, without credentials.

    A message's causes and hints belong to it; of its causes those that only lead to the next are left out.
    """
    found: dict[str, list[list[str]]] = {"error": [], "warning": []}
    parts: list[str] = []
    for line in said.splitlines():
        text = line.translate(_DRAWN).strip()
        begins = _BEGINS.match(text)
        kind = begins["kind"].lower() if begins else ""
        text = text[begins.end() :] if begins else text
        old = not kind and "×" in line  # uv until 0.9
        if kind in found or old:
            parts = []
            found[kind or "error"].append(parts)
        if not text or text.startswith(_USAGE) or set(text) == {"^"}:
            continue
        if kind or old or not parts or "▶" in line:
            parts.append(f"hint: {text}" if kind == "hint" else text)
        else:
            parts[-1] += f" {text}"
    return tuple([_line(parts) for parts in found[kind] if parts] for kind in found)  # type: ignore[return-value]


def _line(parts: Sequence[str]) -> str:
    kept = [part.rstrip(":.") for part in parts if not _STEPS.match(part)]
    text = " ".join(": ".join(kept).split())
    return _CREDENTIALS.sub("****@", text)
