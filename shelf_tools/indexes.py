"""Where packages come from: what pip is configured for, for what pip itself does not fetch.

``shelf publish`` downloads by pip, so that pip's configuration says where packages come from; what uv
resolves has to come from there too (docs/decisions/0022). uv's own variables (``UV_INDEX``, …) and
arguments win over it. ``pip config list`` merges pip's files and variables, so that they need not be found
and ranked here.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cloudimport.errors import ConfigurationError
from shelf_tools import process

#: Seconds; pip takes half a second to start, a cold disk is slower.
_TIMEOUT = 60.0
#: Sections of pip's configuration, the one that wins last (pip, "Configuration").
_SECTIONS = ("global", "download", ":env:")
_TRUE = ("1", "true", "yes", "on")
_SHORT = {"-i": "--index-url", "-f": "--find-links"}
#: Variables of uv that say which indexes there are: an argument takes the place of all of a line.
_DEFAULT_INDEX = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")
_MORE_INDEXES = ("UV_INDEX", "UV_EXTRA_INDEX_URL")
#: Of several indexes pip takes a package's best version, uv by itself those of the first that has any.
PIPS_STRATEGY = "unsafe-best-match"


#: What stands before the host of a URL, in a line: greedy, since a password may have an ``@``.
_USER = re.compile(r"(?<=://)[^/?#\s\"']*@")
#: No secret: pip takes the password, or the token, from a variable of where it runs.
_VARIABLE = re.compile(r"(?:[^:]*:)?(?:\$\{[A-Z0-9_]+\})+@")


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


class Asked(NamedTuple):
    """What was asked for by arguments; what is empty is left to the configuration."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    keyring: str = ""
    strategy: str = ""


#: Nothing was asked for.
AS_CONFIGURED = Asked()


class Settings(NamedTuple):
    """What uv is started with. URLs, which may have a password in them, are in the environment."""

    arguments: tuple[str, ...]
    environ: dict[str, str]


def without_user(line: str) -> str:
    """Return a line without the user names and passwords of its URLs.

    A variable, ``${NAME}``, stays: pip takes it from the environment that it runs in.
    """
    return _USER.sub(lambda found: found[0] if _VARIABLE.fullmatch(found[0]) else "", line)


def pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what pip is configured for (files and ``PIP_*``), by the option's name.

    Raises ConfigurationError if pip cannot say so.
    """
    try:
        done = process.run(
            [sys.executable, "-I", "-m", "pip", "--no-input", "config", "list"],
            timeout=_TIMEOUT,
            env={**environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
    except process.ProcessError as error:
        raise ConfigurationError(f"pip cannot be asked for its configuration: {error}") from None
    if done.returncode:
        raise ConfigurationError(f"pip's configuration cannot be read: {done.reason()}")
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        key, separator, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if separator and section in found and (said := str(ast.literal_eval(value))):  # pip skips empty ones
            found[section][name.replace("_", "-")] = said
    return {name: value for section in _SECTIONS for name, value in found[section].items()}


def read_indexes(environ: Mapping[str, str], options: Sequence[str]) -> Indexes:
    """Return the indexes of pip's configuration and of a requirements file's options, which win.

    ``environ`` is the curator's. Raises ConfigurationError if pip cannot say how it is configured.
    """
    settings = pip_settings(environ)
    lists = {
        name: settings.get(name, "").split() for name in ("extra-index-url", "find-links", "trusted-host")
    }
    url, no_index = settings.get("index-url", ""), settings.get("no-index", "").lower() in _TRUE
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


def uv_settings(environ: Mapping[str, str], asked: Asked = AS_CONFIGURED) -> Settings:
    """Return what uv is started with so that it finds what pip finds, with the same credentials.

    Arguments win over uv's variables, those over pip's configuration. Raises ConfigurationError.
    """
    pip = pip_settings(environ)
    env = dict(environ)
    merged = _indexes(env, asked, pip)
    _connection(env, pip)
    links = asked.find_links or (() if env.get("UV_FIND_LINKS") else tuple(pip.get("find-links", "").split()))
    arguments = [f"--find-links={link}" for link in links]
    arguments += [f"--constraints={file}" for file in pip.get("constraint", "").split()]
    if asked.no_index or pip.get("no-index", "").lower() in _TRUE:
        arguments.append("--no-index")
    if asked.strategy or (merged and not env.get("UV_INDEX_STRATEGY")):
        arguments.append(f"--index-strategy={asked.strategy or PIPS_STRATEGY}")
    keyring = asked.keyring or env.get("UV_KEYRING_PROVIDER") or pip.get("keyring-provider", "")
    if keyring in ("import", "subprocess"):  # uv has the second way only
        arguments.append("--keyring-provider=subprocess")
    return Settings(tuple(arguments), env)


def _indexes(env: dict[str, str], asked: Asked, pip: Mapping[str, str]) -> bool:
    """Set the indexes; return whether there are several because pip is configured for them."""
    configured_more = not any((asked.extra_index_urls, *map(env.get, _MORE_INDEXES)))
    rows = (
        (_DEFAULT_INDEX, asked.index_url, pip.get("index-url", "")),
        (_MORE_INDEXES, " ".join(asked.extra_index_urls), " ".join(pip.get("extra-index-url", "").split())),
    )
    for variables, wanted, configured in rows:
        if wanted:
            for variable in variables:
                env.pop(variable, None)
        if wanted or not any(env.get(variable) for variable in variables):
            env[variables[0]] = wanted or configured
        if not env.get(variables[0]):
            env.pop(variables[0], None)
    return configured_more and _MORE_INDEXES[0] in env


def _connection(env: dict[str, str], pip: Mapping[str, str]) -> None:
    """Set certificates, proxy and time limit as pip has them."""
    bundle = pip.get("cert") or env.get("REQUESTS_CA_BUNDLE") or env.get("CURL_CA_BUNDLE")
    if bundle and not env.get("SSL_CERT_FILE"):
        env["SSL_CERT_FILE"] = bundle
    if not env.get("SSL_CERT_FILE"):  # pip trusts what the system trusts; the newer and the older name
        env.setdefault("UV_SYSTEM_CERTS", "true")
        env.setdefault("UV_NATIVE_TLS", "true")
    for name, variable in (("trusted-host", "UV_INSECURE_HOST"), ("proxy", "ALL_PROXY")):
        if pip.get(name) and not env.get(variable):
            env[variable] = " ".join(pip[name].split())
    for name in ("timeout", "default-timeout"):
        if pip.get(name, "").isdigit():
            env.setdefault("UV_HTTP_TIMEOUT", pip[name])
