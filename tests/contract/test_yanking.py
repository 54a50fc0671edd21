"""Yanking on stores of every kind that decides between racing writers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.format import keys
from cloudimport.ids import Pin
from shelf_tools.environments import open_shelf
from shelf_tools.status import read_status, unyank, yank
from shelf_tools.store import Store, open_store
from tests.support.s3servers import S3Server

CURATORS, PINS_EACH = 4, 5


@pytest.fixture(params=["folder", "moto", "radosgw"])
def store(request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[S3Server], str]) -> Store:
    """A shelf where pins are published, by their pointers alone."""
    if request.param == "folder":
        found = open_store(str(tmp_path / "shelf"), {})
    else:
        server: S3Server = request.getfixturevalue(request.param)
        found = open_store(f"s3://{new_bucket(server)}/root", server.environ)
    open_shelf(found)
    for pin in _pins():
        found.create(keys.build_pointer(pin.name, pin.version, "cp312-manylinux_2_28_x86_64"), b"{}")
    return found


def _pins() -> list[Pin]:
    return [Pin.parse(f"package-{n}=={n}") for n in range(CURATORS * PINS_EACH)]


def test_yanked_and_back(store: Store) -> None:
    """A pin is yanked, given another reason, and unyanked; what was said before is returned."""
    one, two = _pins()[:2]
    assert yank(store, one, "a hole") == ""
    assert yank(store, one, "a  larger\nhole") == "a hole"
    assert yank(store, two, "other") == ""
    assert read_status(store).yanked == {one: "a larger hole", two: "other"}
    assert unyank(store, one) == "a larger hole"
    assert read_status(store).yanked == {two: "other"}
    with pytest.raises(ConfigurationError, match="package-0==0 is not yanked on"):
        unyank(store, one)


def test_what_is_not_there_is_not_yanked(store: Store) -> None:
    """A pin that is not on the shelf, be it by its version, is an error: it was misspelt."""
    for text in ("package-1==1.1", "package-1==11", "package==1"):
        with pytest.raises(ConfigurationError, match=f"{text} is not on "):
            yank(store, Pin.parse(text), "a hole")
    assert read_status(store).yanked == {}


def test_a_shelf_without_status(store: Store) -> None:
    """Of a shelf from before there was such an object nothing is yanked, and yanking makes it."""
    store.delete(keys.STATUS)
    assert read_status(store).yanked == {}
    yank(store, _pins()[0], "a hole")
    assert read_status(store).yanked == {_pins()[0]: "a hole"}


def test_curators_at_once_lose_nothing(store: Store) -> None:
    """Of several curators who yank and unyank at the same time everyone's changes are there in the end."""
    barrier = Barrier(CURATORS)

    def work(number: int) -> None:
        own = _pins()[number::CURATORS]
        barrier.wait()
        for pin in own:
            yank(store, pin, f"by {number}")
        unyank(store, own[0])

    with ThreadPoolExecutor(CURATORS) as pool:
        list(pool.map(work, range(CURATORS)))
    left = {pin: f"by {at % CURATORS}" for at, pin in enumerate(_pins()) if at >= CURATORS}
    assert read_status(store).yanked == left
