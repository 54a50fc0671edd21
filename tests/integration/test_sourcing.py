"""What goes wrong while a wheel is built is the matter of that pin, and of no other."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from cloudimport.format.requirements import Requirement, parse_lines
from cloudimport.ids import Pin, Target, running_targets
from shelf_tools import sourcing, stages
from shelf_tools.errand import Errand
from shelf_tools.fetch import Wheel
from shelf_tools.limits import StageLimits
from shelf_tools.sandbox import Sandbox
from shelf_tools.sourcing import Sourcing
from tests.support.sandboxes import bubblewrap
from tests.support.sdists import build_sdist, own_backend

TARGET = running_targets()[0]


def environ(folder: Path) -> dict[str, str]:
    """Return an environment whose only packages are those of a folder."""
    return {
        "PATH": os.environ["PATH"], "HOME": str(folder), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder / "index"), "UV_OFFLINE": "1", "UV_NO_CACHE": "1",
    }  # fmt: skip


def test_a_full_disk_is_the_failure_of_one_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build beside one that the system fails goes on to its end, and its wheel is there."""
    for name, before in (("fails", "pass"), ("slow", "import time; time.sleep(3)")):
        build_sdist(tmp_path / "index", name, "1.0", own_backend(name, before=before))
    build = Sourcing._build
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "x"))

    def failing(self: Sourcing, one: Requirement, target: Target, folder: Path) -> Wheel:
        if one.pin.name != "fails":
            return build(self, one, target, folder)
        time.sleep(1.5)  # the other one is in its sandbox then
        raise full

    monkeypatch.setattr(Sourcing, "_build", failing)
    wanted = parse_lines(["fails==1.0", "slow==1.0"], "list")
    it = Sourcing(
        environ(tmp_path), (), {}, 2, {"fails", "slow"}, bubblewrap(), StageLimits(), lambda _: None
    )
    found, failures = it.some(wanted, TARGET, tmp_path / "into", lambda _: None)
    assert [wheel.path.name for wheel in found.values()] == ["slow-1.0-py3-none-any.whl"]
    assert found[Pin("slow", "1")].path.is_file()
    assert failures == {Pin("fails", "1"): f"list:1: fails==1: {full}"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_only_an_interruption_ends_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """Ctrl-C ends every process of this one; a fault of ours does not."""
    stopped: list[bool] = []

    def build(self: Sourcing, one: Requirement, target: Target, folder: Path) -> Wheel:
        raise error

    monkeypatch.setattr(Sourcing, "_build", build)
    monkeypatch.setattr(sourcing.process, "stop_all", lambda: stopped.append(True))
    build_sdist(tmp_path / "index", "a", "1.0", own_backend("a"))
    it = Sourcing(environ(tmp_path), (), {}, 1, {"a"}, bubblewrap(), StageLimits(), lambda _: None)
    with pytest.raises(error):
        it.some(parse_lines(["a==1.0"]), TARGET, tmp_path / "into", lambda _: None)
    assert bool(stopped) is not issubclass(error, Exception)


def test_what_keeps_a_batch_from_being_fetched_is_a_line_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that fetches gives its pins' failures back, and raises nothing."""

    def fails(*_: object) -> Sandbox:
        raise PermissionError(errno.EACCES, "Permission denied", "/somewhere")

    monkeypatch.setattr(stages, "fetch_wheels", fails)
    (tmp_path / str(TARGET)).mkdir()
    errand = Errand("run", TARGET, str(tmp_path / "shelf"), "bubblewrap", 3, environ={}, folder=tmp_path)
    wanted = [(one, None) for one in parse_lines(["a==1.0", "b==1.0"], "list")]
    found = stages.prepare(errand, wanted)
    why = "[Errno 13] Permission denied: '/somewhere'"
    assert found == [stages.Failed(f"list:{at}: {name}==1: {why}") for at, name in ((1, "a"), (2, "b"))]
