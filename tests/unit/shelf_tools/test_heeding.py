"""Yanked pins of functions that are served."""

from __future__ import annotations

import pytest

from cloudimport.errors import AbsentError, UnreachableError, YankedError
from cloudimport.format import keys
from cloudimport.format.status import Status
from cloudimport.ids import Pin
from cloudimport.settings import Settings
from shelf_tools.serving.heeding import Heeding

A, B = Pin.parse("a==1"), Pin.parse("b==2")


class Asked:
    """A shelf that has a status, or an error; counts how often it is asked."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.url, self.answer, self.count = "memory:", answer, 0

    def read(self, key: str) -> bytes:
        """Return the status."""
        assert key == keys.STATUS
        self.count += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def status(**yanked: str) -> bytes:
    """Return a status in which the one version of some names is yanked."""
    pins = {pin: yanked[pin.name] for pin in (A, B) if pin.name in yanked}
    return Status.empty()._replace(yanked=pins).encode()


def heeding(
    asked: Asked, yanked: str = "warn", seconds: float = 300.0, **more: bool
) -> tuple[Heeding, list[str]]:
    """Return one for a function with the pin a==1, and where it says what."""
    said: list[str] = []
    settings = Settings("", "", "", "", 0, 0, 1.0, {}, yanked=yanked, status_seconds=seconds, **more)
    return Heeding("f", [A], asked, settings, said.append), said  # type: ignore[arg-type]


def test_said_once_and_asked_once() -> None:
    """Of the function's pins alone."""
    asked = Asked(status(a="bad", b="worse"))
    one, said = heeding(asked)
    one.look()
    one.look()
    assert said == ["f: a==1 is yanked: bad"]
    assert asked.count == 1


def test_asked_again_when_it_is_old() -> None:
    """What is yanked while the server runs is heard of."""
    asked = Asked(status())
    one, said = heeding(asked, seconds=1e-9)
    one.look()
    asked.answer = status(a="bad")
    one.look()
    assert said == ["f: a==1 is yanked: bad"]


def test_refused() -> None:
    """No further sandbox starts, and the error has the reasons."""
    one, said = heeding(Asked(status(a="bad")), "refuse")
    with pytest.raises(YankedError, match="f: a==1 is yanked: bad") as error:
        one.look()
    assert error.value.yanked == {"a==1": "bad"}
    assert said == []


def test_ignored() -> None:
    """Then nobody is asked."""
    asked = Asked(status(a="bad"))
    one, said = heeding(asked, "ignore")
    one.look()
    assert (said, asked.count) == ([], 0)


def test_not_known() -> None:
    """A shelf that does not answer is a line, or an error if an answer is wanted; one has no status."""
    one, said = heeding(Asked(UnreachableError("gone", key=keys.STATUS)))
    one.look()
    assert said == ["f: which pins are yanked is not known: gone"]
    strict, _ = heeding(Asked(UnreachableError("gone", key=keys.STATUS)), "refuse", needs_status=True)
    with pytest.raises(UnreachableError):
        strict.look()
    none, said = heeding(Asked(AbsentError("none", key=keys.STATUS)))
    none.look()
    assert said == []
