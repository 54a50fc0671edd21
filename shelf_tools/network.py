"""A static sign that code can reach the network: names of modules for it among what the code names.

The sign of a module is that its bytecode has, as a name or as a string constant, the name of a module for
networks (or of something in it), or of an asyncio function that opens connections. That covers ``import``
in all its forms, at whatever depth, ``importlib.import_module("…")`` and ``__import__("…")``; the compiler
joins constants, so ``"soc" + "ket"`` too. Where there is no bytecode it is a word of the source, comments
included. Of native code it is that its symbol table or its strings name a function of the C library, of
OpenSSL or of curl for it.

It is a sign and no proof, in both directions. A string that is only printed counts. Names that are computed
at run time do not, nor does code that is fetched or decoded and executed, nor a network that is reached
through another package that has one, or through a program that is started.

Nothing of a package is executed or unmarshalled to see it: bytes are searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

#: The first component of modules that are for networks: of the standard library, and of packages in wide use.
_MODULES = (
    "_socket _ssl socket socketserver ssl ftplib imaplib nntplib poplib smtplib telnetlib xmlrpc "
    "aiohttp boto3 botocore curl_cffi geventhttpclient grpc httpcore httplib2 httpx paramiko pycurl requests "
    "treq urllib3 websocket websockets zmq"
).split()
#: Modules that are one of several in a package that is for more: by (package, module).
_INNER = (("http", "client"), ("http", "server"), ("urllib", "request"))
#: Functions and methods of asyncio that open connections or wait for them.
_ASYNCIO = (
    "open_connection open_unix_connection start_server start_unix_server create_connection create_server "
    "create_datagram_endpoint"
).split()
#: Functions of libraries that native code calls.
_SYMBOLS = "connect getaddrinfo gethostbyname gethostbyname_r SSL_connect curl_easy_perform".split()

#: A string as ``marshal`` writes it, up to its text: a type code, with or without the mark that it is
#: referred to again, and its length in bytes (CPython, Python/marshal.c). Each text stands there once.
_SHORT = rb"[Zz\xda\xfa](?P<short>.)"
_LONG = rb"[AaTtUu\xc1\xe1\xd4\xf4\xd5\xf5](?P<long>.{4})"
_INNERS = [name for pair in _INNER for name in pair]
#: The longest first: ``httpx`` does not begin with ``http`` and an x.
_HEADS = "|".join(sorted({*_MODULES, *_ASYNCIO, *_INNERS}, key=len, reverse=True)).encode()
_NAME = rb"(?:%b)(?:\.[A-Za-z0-9_.]*)?" % _HEADS
_IN_CODE = re.compile(rb"(?:%b|%b)(?P<name>%b)" % (_SHORT, _LONG, _NAME), re.DOTALL)
_WHOLE = re.compile(_NAME)
_IN_TEXT = re.compile(
    rb"(?<![\w.])(?:%b)(?:\.\w+)*(?!\w)|(?<=\.)(?:%b)(?!\w)" % (_HEADS, "|".join(_ASYNCIO).encode())
)
_IN_NATIVE = re.compile(rb"\0(?:%b)(?=[\0@])" % "|".join(_SYMBOLS).encode())
#: More bytes than a symbol has: pieces of a file overlap by so many.
_OVERLAP = 64


def in_code(code: bytes) -> set[str]:
    """Return the names that a marshalled code object has, as bytes that are searched."""
    found = set()
    at = 0
    while match := _IN_CODE.search(code, at):
        at = match.start() + 1  # what looks like a length may be in the middle of something else
        size = match["short"][0] if match["short"] else int.from_bytes(match["long"], "little")
        name = match["name"]
        if size <= len(name) and _WHOLE.fullmatch(name, 0, size):
            found.add(name[:size].decode())
    return _named(found)


def in_text(source: bytes) -> set[str]:
    """Return the names that stand in a source text as words."""
    words = {match[0].decode() for match in _IN_TEXT.finditer(source)}
    return _named(words)


def in_native(pieces: Iterable[bytes]) -> set[str]:
    """Return the names of functions that a native file, given in pieces, has among its strings."""
    found: set[str] = set()
    for piece in _overlapping(pieces):
        found |= {match[0][1:].decode() for match in _IN_NATIVE.finditer(piece)}
    return found


def _overlapping(pieces: Iterable[bytes]) -> Iterator[bytes]:
    tail = b""
    for piece in pieces:
        yield tail + piece
        tail = (tail + piece)[-_OVERLAP:]


def _named(texts: set[str]) -> set[str]:
    """Return the signs among texts that begin with what is looked for."""
    heads = {text.partition(".")[0] for text in texts}
    found = {head for head in heads if head in _MODULES or head in _ASYNCIO}
    for package, module in _INNER:
        dotted = f"{package}.{module}"
        is_whole = any(text == dotted or text.startswith(f"{dotted}.") for text in texts)
        if is_whole or {package, module} <= texts:
            found.add(dotted)
    return found
