"""Layers as one folder, /opt: later ones lie over earlier ones, as AWS extracts them in order.

Nothing is copied: what only one layer has is mounted whole, and folders that several have are made anew and
filled with what each has in them. Pure but for looking at the layers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple


class Mount(NamedTuple):
    """One path inside: ``relative`` of a ``layer`` is mounted there, or it is a new folder, or a link."""

    kind: Literal["bind", "folder", "link"]
    inside: PurePosixPath
    layer: Path
    relative: str = ""
    link: str = ""


def merged(layers: Sequence[Path], inside: PurePosixPath) -> Iterator[Mount]:
    """Yield what makes ``inside`` show all layers, folders before what is in them. Raises OSError."""
    yield from _shown(list(layers), "", inside)


def _shown(having: list[Path], relative: str, inside: PurePosixPath) -> Iterator[Mount]:
    """Yield what shows a path that each of the layers ``having`` has."""
    if not having:
        return
    last = os.path.join(having[-1], relative)
    if os.path.islink(last):
        yield Mount("link", inside, having[-1], relative, os.readlink(last))
    elif not os.path.isdir(last) or len(_folders(having, relative)) == 1:
        yield Mount("bind", inside, having[-1], relative)
    else:
        yield Mount("folder", inside, having[-1], relative)
        folders = _folders(having, relative)
        for name in sorted({name for layer in folders for name in os.listdir(layer / relative)}):
            below = os.path.join(relative, name)
            yield from _shown([one for one in folders if os.path.lexists(one / below)], below, inside / name)


def _folders(having: list[Path], relative: str) -> list[Path]:
    """Return the layers of which ``relative`` is a folder that those after them have not replaced."""
    found: list[Path] = []
    for layer in having:
        path = os.path.join(layer, relative)
        found = [*found, layer] if os.path.isdir(path) and not os.path.islink(path) else []
    return found
