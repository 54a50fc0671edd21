"""The runtime's own stack, put together as ``install`` does, without touching this interpreter."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cloudimport.format.records import Ref, sha256
from cloudimport.ids import running_targets
from cloudimport.parts import Parts
from cloudimport.settings import Settings
from cloudimport.sources.base import Source

Wrap = Callable[[Source], Source]


class Stack:
    """An opened environment: its files by path, from the blocks and from the site tree."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.index = parts.index
        self.tree = parts.tree

    def read(self, path: str) -> bytes:
        """Return a file from the blocks."""
        return self.tree.read(*self._find(path))

    def fill(self, path: str) -> bytes:
        """Return a file from the site tree, where it is made if need be."""
        section, file = self._find(path)
        native = section.kinds[file] == "n"
        made = self.tree.fill_native(section, file) if native else self.tree.fill(section, file)
        return Path(made).read_bytes()

    def code(self, stem: str) -> bytes:
        """Return a module's marshalled code."""
        found = self.index.find_module(stem)
        assert found is not None
        return bytes(self.tree.code(*found))

    def paths(self) -> Iterator[str]:
        """Yield every path of the environment."""
        for build in range(len(self.index.builds)):
            yield from self.index.section(build).paths

    def stems(self) -> Iterator[str]:
        """Yield every module that has bytecode."""
        for build in range(len(self.index.builds)):
            section = self.index.section(build)
            for stem in section.modules:
                module = section.module(stem)
                if module is not None and module.code:
                    yield stem

    def everything(self) -> dict[str, str]:
        """Return the digest of every file as read, as filled, and of every code object."""
        found = {f"read {path}": sha256(self.read(path)) for path in self.paths()}
        found |= {
            f"fill {path}": sha256(self.fill(path)) for path in self.paths() if not path.startswith("bin/")
        }
        return found | {f"code {stem}": sha256(self.code(stem)) for stem in self.stems()}

    def stats(self) -> dict[str, float]:
        """Return counters and requests."""
        return {**self.parts.counters.snapshot(), "requests": self.parts.counting.requests}

    def _find(self, path: str):  # type: ignore[no-untyped-def]
        found = self.index.find_file(path)
        assert found is not None, path
        return found


@contextmanager
def opened(
    url: str,
    ref: Ref,
    cache: Path,
    *,
    wrap: Wrap | None = None,
    environ: Mapping[str, str] | None = None,
    memory_bytes: int = 32 << 20,
    cache_bytes: int = 1 << 30,
    deadline: float = 2.0,
) -> Iterator[Stack]:
    """Yield a fresh stack over a shelf, as a new process would have it. ``wrap`` goes around the source."""
    old = os.umask(0o077)
    settings = Settings(url, "", "", str(cache), cache_bytes, memory_bytes, deadline, dict(environ or {}))
    try:
        parts = Parts(settings, url)
        if wrap is not None:
            parts.source = parts.fetcher.source = wrap(parts.source)
        parts.open_index(ref, str(running_targets()[0]))
        parts.tree.create()
        yield Stack(parts)
    finally:
        os.umask(old)
        parts.source.close()
