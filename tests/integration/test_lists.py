"""Lists as people and tools wrote them, of real packages: published as they stand, and imported.

The first two are what OpenLambda's examples install; ``locked.in`` has what its documents list as missing:
extras, ranges, and dependencies of a platform and of a Python.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloudimport.format.lock import Lock
from cloudimport.ids import Pin, Target, running_targets
from shelf_tools.pins import for_target, read_pins
from tests.support.children import Runner
from tests.support.runtimes import running_version
from tests.support.shelfcommand import run_shelf

LISTS = Path(__file__).parent / "lists"
HERE = running_targets()[0]
#: What is imported of the locked list, with the versions that the list has.
PROGRAM = """
import cloudimport
cloudimport.install()
import importlib.metadata, sys
import requests, socks, urllib3.contrib.socks, uvicorn, uvloop, httptools, watchfiles, websockets, yaml
import google.cloud.storage, google.api_core, greenlet
assert google.cloud.storage.Client.create_anonymous_client().project is None
assert uvicorn.Config("x:y", loop="uvloop", http="httptools").get_loop_factory() is not None
for name in ("requests", "uvicorn", "google-cloud-storage", "greenlet", "protobuf"):
    print(f"{name}=={importlib.metadata.version(name)}")
"""


def import_from(python: str, code: str, folder: Path) -> str:
    """Run a program in a fresh interpreter that goes by the lockfile in ``folder``."""
    return (
        Runner(folder / "home", python, [])
        .run(code, env={"CLOUDIMPORT_LOCK": f"{folder}/cloudimport.lock"})
        .ok()
    )


def publish(requirements: Path, folder: Path, *targets: str) -> str:
    """Publish a list to a shelf in ``folder``; return what was said."""
    arguments = [word for target in targets for word in ("--target", target)]
    where = ("--shelf", folder / "shelf", "--lock", folder / "cloudimport.lock", "--level", "3")
    return run_shelf("publish", "-r", requirements, *where, *arguments).ok()


@pytest.mark.network
def test_requests_of_2018(runtime: Callable[[str], str], tmp_path: Path) -> None:
    """requests 2.20 with its dependencies is published for Python 3.10 as pip-compile printed it."""
    target = HERE._replace(python=(3, 10))
    assert "5 published" in publish(LISTS / "requests-2.20.txt", tmp_path, str(target))
    code = """
        import cloudimport
        cloudimport.install()
        import requests
        print(requests.__version__, requests.get)
    """
    assert import_from(runtime("3.10"), code, tmp_path).startswith("2.20.0 <function get")


@pytest.mark.network
@pytest.mark.long
def test_numpy_and_pandas_of_2022(runtime: Callable[[str], str], tmp_path: Path) -> None:
    """numpy 1.24.0 and pandas 1.5.0 with hashes are published for Python 3.10 as pip-compile printed them."""
    target = HERE._replace(python=(3, 10))
    listed = LISTS / "numpy-pandas-3.10.txt"
    assert "5 published" in publish(listed, tmp_path, str(target))
    code = """
        import cloudimport
        cloudimport.install()
        import numpy, pandas
        print(numpy.__version__, pandas.__version__, pandas.DataFrame({"a": numpy.arange(4)}).a.sum())
    """
    assert import_from(runtime("3.10"), code, tmp_path).split() == ["1.24.0", "1.5.0", "6"]
    # What is there has the hashes of the list: it is taken.
    assert "0 published, 5 were there" in publish(listed, tmp_path, str(target))


@pytest.mark.network
@pytest.mark.long
def test_locked_for_two_targets(runtime: Callable[[str], str], tmp_path: Path) -> None:
    """Extras, ranges and conditions are locked for two targets and published; the one here imports them."""
    other = Target.parse("lambda-python3.10-arm64")
    out = tmp_path / "requirements.txt"
    targets = ("--target", str(HERE), "--target", str(other))
    run_shelf("lock", LISTS / "locked.in", "-o", out, *targets).ok()
    ours, theirs = (
        {one.pin.name: one for one in for_target(read_pins(out), target)} for target in (HERE, other)
    )
    assert "greenlet" in ours
    assert "greenlet" not in theirs
    assert "exceptiongroup" in theirs
    assert ("exceptiongroup" in ours) == (HERE.python < (3, 11))
    assert "colorama" not in {*ours, *theirs}
    for pins in (ours, theirs):
        assert pins["requests"].extras == ("socks",)
        assert {"pysocks", "uvloop", "google-cloud-core", "protobuf"} <= set(pins)
        assert all(one.hashes for one in pins.values())
    publish(out, tmp_path, str(HERE), str(other))
    assert set(Lock.decode((tmp_path / "cloudimport.lock").read_text(), "").targets) == {
        str(HERE),
        str(other),
    }
    said = import_from(runtime(running_version()), PROGRAM, tmp_path).split()
    assert [line.partition("==")[0] for line in said][:3] == ["requests", "uvicorn", "google-cloud-storage"]
    assert {str(one.pin) for one in for_target(read_pins(out), HERE)} >= {
        str(Pin.parse(line)) for line in said
    }
