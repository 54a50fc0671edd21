"""Sources through fsspec: the helper process, and what is private to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudimport.errors import AbsentError, ConfigurationError, DeniedError, UnreachableError
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.foreign import ForeignSource
from tests.support.faulty import FaultyServer
from tests.support.httpserver import HttpServer, Reply

Make = Callable[..., ForeignSource]
STANDARD = tuple(entry for entry in sys.path if entry and "site-packages" not in entry)


@pytest.fixture
def make() -> Iterator[Make]:
    """A function that makes a source, closed at the end."""
    made: list[ForeignSource] = []

    def make_source(url: str, config: SourceConfig | None = None) -> ForeignSource:
        made.append(ForeignSource(url, config or SourceConfig()))
        return made[-1]

    yield make_source
    for source in made:
        source.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one object."""
    (tmp_path / "k").write_bytes(b"0123456789")
    return tmp_path


def test_fsspec_never_comes_into_this_process(folder: Path) -> None:
    """After a read neither fsspec nor a plugin of its stands in ``sys.modules``."""
    script = (
        "import sys\n"
        "from cloudimport.sources.config import SourceConfig\n"
        "from cloudimport.sources.opening import open_source\n"
        "source = open_source(sys.argv[1], SourceConfig())\n"
        "assert source.read('k', 1, 3) == b'123'\n"
        "source.close()\n"
        "assert not [name for name in sys.modules if name.startswith(('fsspec', 'aiohttp'))]\n"
    )
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-X", "dev", "-c", script, f"local://{folder}"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": root}, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_a_helper_that_died_is_replaced(folder: Path, make: Make) -> None:
    """After the helper was killed the next read starts another."""
    source = make(f"local://{folder}")
    assert source.read("k") == b"0123456789"
    process = source._helper._process  # type: ignore[union-attr]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert source.read("k") == b"0123456789"


def test_a_helper_that_dies_during_a_read_is_an_unreachable_error(folder: Path, make: Make) -> None:
    """A read whose helper goes away ends in an error that may be retried."""
    with HttpServer(lambda _: Reply(fault="stall")) as server:
        source = make(server.endpoint + "/x")
        with pytest.raises(UnreachableError, match="the helper process did not answer") as caught:
            _while_killing(source)
        assert caught.value.retryable


def _while_killing(source: ForeignSource) -> None:
    import threading

    def kill() -> None:
        while source._helper is None:
            time.sleep(0.01)
        time.sleep(0.5)
        source._helper._process.kill()

    threading.Thread(target=kill, daemon=True).start()
    source.read("k")


def test_a_helper_that_does_not_answer_in_time_is_an_unreachable_error(make: Make) -> None:
    """A store that says nothing meets the deadline, and the helper is ended."""
    with HttpServer(lambda _: Reply(fault="stall")) as server:
        source = make(server.endpoint + "/x", SourceConfig(deadline=1.5))
        began = time.monotonic()
        with pytest.raises(UnreachableError):
            source.read("k")
        assert time.monotonic() - began < 10


def test_close_ends_the_helper(folder: Path, make: Make) -> None:
    """No process is left behind."""
    source = make(f"local://{folder}")
    source.read("k")
    process = source._helper._process  # type: ignore[union-attr]
    source.close()
    assert process.returncode is not None


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(403, DeniedError), (404, AbsentError), (503, UnreachableError), ("reset", UnreachableError)],
)
def test_errors_of_a_plugin_are_typed(
    folder: Path, make: Make, fault: str | int, expected: type[Exception]
) -> None:
    """What an HTTP plugin raises becomes the type that it means."""
    with FaultyServer(folder, {0: fault}) as server:
        with pytest.raises(expected) as caught:
            make(f"{server.endpoint}/bucket").read("k", 1, 3)
        assert "\n" not in str(caught.value)


def test_a_server_that_ignores_range_is_cut(folder: Path, make: Make) -> None:
    """Where the whole object comes, the window is cut out of it."""
    with FaultyServer(folder, {0: "whole"}) as server:
        assert make(f"{server.endpoint}/bucket").read("k", 2, 3) == b"234"


def test_without_fsspec_the_error_says_what_to_install(make: Make) -> None:
    """Where fsspec is not installed, a ConfigurationError names it."""
    with pytest.raises(ConfigurationError, match="pip install fsspec"):
        make("gs://bucket/x", SourceConfig(helper_path=STANDARD)).read("k")


def test_without_its_plugin_the_error_says_what_to_install(make: Make) -> None:
    """Where a scheme's plugin is not installed, fsspec's own advice is given."""
    with pytest.raises(ConfigurationError, match=r"gs://bucket/x: .*gcsfs"):
        make("gs://bucket/x").read("k")


def test_an_unknown_scheme_is_a_configuration_error(make: Make) -> None:
    """A scheme that fsspec does not know is named."""
    with pytest.raises(ConfigurationError, match="nonsense"):
        make("nonsense://x/y").read("k")


def test_the_helper_does_not_run_a_sitecustomize(folder: Path, tmp_path: Path, make: Make) -> None:
    """A bootstrap on PYTHONPATH, such as our own for child interpreters, is not run in the helper."""
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    environ = {"PYTHONPATH": str(tmp_path)}
    assert make(f"local://{folder}", SourceConfig(environ=environ)).read("k") == b"0123456789"
    assert not (tmp_path / "ran").exists()


def test_the_helper_has_the_environment_of_the_configuration(make: Make, tmp_path: Path) -> None:
    """What ``environ`` says is what plugins see."""
    plugin = tmp_path / "fsspec" / "core.py"
    plugin.parent.mkdir()
    (plugin.parent / "__init__.py").write_text("")
    plugin.write_text(
        "import json, os\n"
        "class System:\n"
        "    def cat_file(self, name, start=None, end=None):\n"
        "        print('noise')\n"
        "        return json.dumps(dict(os.environ)).encode()\n"
        "def url_to_fs(url):\n"
        "    return System(), ''\n"
    )
    config = SourceConfig(environ={"ONLY": "this"}, helper_path=(str(tmp_path), *STANDARD))
    seen = json.loads(make("x://y", config).read("k"))
    assert {name: value for name, value in seen.items() if name != "LC_CTYPE"} == {"ONLY": "this"}
