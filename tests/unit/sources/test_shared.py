"""A folder that several users share: what it gives, what it does not, and what lies in it by malice."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudimport.events import Counters
from cloudimport.format.keys import is_immutable
from cloudimport.sources.folder import FolderSource
from cloudimport.sources.shared import Shared

DIGEST = "0123456789abcdef" * 4
PACK = f"packages/a/1/t/pack-{DIGEST}"


class Both:
    """A store and a shared folder with other bytes under the same key, and a source over both."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder, store = tmp_path / "shared", tmp_path / "store"
        for place, data in ((self.folder, b"shared"), (store, b"stored")):
            for key in (PACK, f"envs/{DIGEST}", f"envs/{DIGEST}.json", "shelf.json"):
                (place / key).parent.mkdir(parents=True, exist_ok=True)
                (place / key).write_bytes(data)
        self.counters = Counters()
        self.source = Shared(FolderSource(str(store)), str(self.folder), self.counters)

    @property
    def shared(self) -> float:
        """Bytes that came from the shared folder."""
        return self.counters.snapshot()["bytes_shared"]


@pytest.fixture
def both(tmp_path: Path) -> Both:
    """Both, with different bytes."""
    return Both(tmp_path)


@pytest.mark.parametrize("key", [PACK, f"envs/{DIGEST}"])
def test_what_can_be_checked_comes_from_the_folder_once(both: Both, key: str) -> None:
    """A pack or an index comes from the folder; who asks again has found it wrong, and gets the store's."""
    assert both.source.read(key) == b"shared"
    assert both.source.read(key, 1, 3) == b"har"
    assert (both.source.read(key), both.source.read(key, 1, 3)) == (b"stored", b"tor")
    assert both.shared == 9


def test_another_thread_may_ask_for_the_same(both: Both) -> None:
    """A second read by who only found the first one slow is no reason to ask the store."""
    assert both.source.read(PACK) == b"shared"
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(both.source.read, PACK).result() == b"shared"
        assert pool.submit(both.source.read, PACK).result() == b"stored"


@pytest.mark.parametrize("key", [f"envs/{DIGEST}.json", "shelf.json"])
def test_pointers_come_from_the_store(both: Both, key: str) -> None:
    """What has no digest in its name is never taken from the folder."""
    assert both.source.read(key) == b"stored"
    assert both.shared == 0


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _huge(path: Path) -> None:
    os.truncate(path, 1 << 42)


@pytest.mark.parametrize("spoil", [Path.unlink, _pipe, _link, _folder, _huge, lambda p: p.write_bytes(b"")])
def test_what_is_no_plain_object_is_not_there(both: Both, spoil: object) -> None:
    """A missing, linked, empty or endless file, a pipe or a folder: the store's bytes, and no waiting."""
    spoil(both.folder / PACK)  # type: ignore[operator]
    assert both.source.read(PACK) == b"stored"
    assert both.shared == 0


def test_a_file_that_is_too_short(both: Both) -> None:
    """What lacks some of the window comes from the store whole."""
    os.truncate(both.folder / PACK, 4)
    assert both.source.read(PACK, 2, 4) == b"ored"


def test_which_keys_are_immutable() -> None:
    """Only names that end with a digest are, and none that leads out of the folder."""
    assert all(map(is_immutable, [PACK, f"envs/{DIGEST}", f"packages/a/1/t/boot-{DIGEST}"]))
    others = ["", DIGEST, "envs/x", f"envs/{DIGEST}.json", f"a/../pack-{DIGEST}", f"{PACK}0", PACK.upper()]
    assert not any(map(is_immutable, others))
