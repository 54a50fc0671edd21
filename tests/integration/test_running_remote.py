"""``shelf run --remote``: the real runner, deployed in a sandbox like Lambda's, invoked through boto3."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import cloudimport
from cloudimport.format import codec
from lambda_layer import runner
from shelf_tools.lambdabox.runtime import lay_out
from tests.integration.test_running import Bench
from tests.support.children import Ran
from tests.support.invoking import invoke_server
from tests.support.lambdas import function, make_box, prefix_of
from tests.support.runtimes import install_packages, running_version
from tests.support.sandboxes import bubblewrap
from tests.support.shelfcommand import publisher_environment
from tests.support.shelves import MadeShelf

#: Seconds after which the server says that a function has timed out.
_TIMEOUT = 8.0


def layer(folder: Path, codecs: Path | None = None) -> Path:
    """Lay the runtime out as a layer has it; ``codecs`` has the codec of another Python."""
    python = folder / "python"
    left_out = shutil.ignore_patterns("__pycache__", "*.c")
    shutil.copytree(Path(cloudimport.__file__).parent, python / "cloudimport", ignore=left_out)
    extension = codec.locate()
    if codecs is not None:
        shutil.copytree(codecs / "backports", python / "backports")
    elif extension:
        place = python / "backports" / "zstd"
        place.mkdir(parents=True)
        shutil.copy(extension, place)
    return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> MadeShelf:
    """A shelf with packages that its functions need."""
    bubblewrap()
    made = MadeShelf(tmp_path_factory.mktemp("shelf"))
    made.add(
        "six", "1.17.0", {"six.py": "PY3 = True\ndef ensure_str(text): return text\nensure_text = str\n"}
    )
    made.add("logzero", "1.7.0", {"logzero.py": "import six\n"}, requires=["six"])
    return made


@pytest.fixture(scope="module")
def endpoint(shelf: MadeShelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Lambda with two runners, and with a function that is none."""
    folder, version = tmp_path_factory.mktemp("lambda"), running_version()
    runtime, made = lay_out(folder / "runtime", version), layer(folder / "layer")
    task = folder / "task"
    task.mkdir()
    shutil.copy(runner.__file__, task)
    (task / "other.py").write_text("def handler(event, context):\n    return [1]\n")
    (task / "fails.py").write_text("def handler(event, context):\n    raise ValueError('no')\n")
    more = {"mounts": ((Path(shelf.url), "/mnt/shelf"),), "environ": {"CLOUDIMPORT_SHELF": "/mnt/shelf"}}
    boxes = {
        name: make_box(task, runtime, version, handler=f"{module}.handler", name=name, layers=[made], **more)
        for name, module in {"one": "runner", "two": "runner", "other": "other", "fails": "fails"}.items()
    }
    with (
        function(boxes["one"]) as one,
        function(boxes["two"]) as two,
        function(boxes["other"]) as other,
        function(boxes["fails"]) as fails,
        invoke_server({"one": one, "two": two, "other": other, "fails": fails}, _TIMEOUT) as url,
    ):
        yield url


@pytest.mark.long
@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_versions_are_chosen_for_the_runners_interpreter(tmp_path: Path, version: str) -> None:
    """Which is another than that of this machine; the record has both."""
    if version == running_version():
        pytest.skip("this is the interpreter that runs the tests")
    prefix_of(version)
    shelf = MadeShelf(tmp_path / "made")
    shelf.add("six", "1.17.0", {"six.py": "def ensure_str(text): return text\n"})
    own = shelf.target
    shelf.target = own._replace(python=(3, int(version.partition(".")[2])))
    shelf.add("six", "1.17.0", {"six.py": "def ensure_str(text): return 2 * text\n"}, bytecode=False)
    requirements = tmp_path / "codec.txt"
    requirements.write_text(f"backports.zstd=={metadata.version('backports.zstd')}\n")
    codecs = install_packages(version, requirements, tmp_path / "codec" / "python")
    made = layer(tmp_path / "layer", codecs)
    task = tmp_path / "task"
    task.mkdir()
    shutil.copy(runner.__file__, task)
    box = make_box(
        task,
        lay_out(tmp_path / "runtime", version),
        version,
        handler="runner.handler",
        layers=[made],
        mounts=((Path(shelf.url), "/mnt/shelf"),),
        environ={"CLOUDIMPORT_SHELF": "/mnt/shelf"},
    )
    with function(box) as one, invoke_server({"one": one}) as url:
        remote = Remote(tmp_path, shelf)
        remote.endpoint = url
        assert remote.run("prints.py", "-a", "56").ok() == '"6"'
    text = (tmp_path / "prints.py.lock").read_text()
    assert str(shelf.target) in text
    assert str(own) not in text
    assert Bench(tmp_path, shelf).run(tmp_path / "prints.py", "-a", "5").ok() == '"5"'
    text = (tmp_path / "prints.py.lock").read_text()
    assert str(shelf.target) in text
    assert str(own) in text


class Remote(Bench):
    """A folder with examples that run remotely."""

    endpoint = ""

    def run(self, name: str | Path, *words: str, env: dict[str, str] | None = None, to: str = "one") -> Ran:
        """Run an example by a deployed function."""
        return super().run(name, "--remote", to, *words, env={**self.keys(), **(env or {})})

    def keys(self) -> dict[str, str]:
        """Return the variables by which Lambda is found."""
        keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
        return {**keys, "AWS_ENDPOINT_URL_LAMBDA": self.endpoint, "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def remote(tmp_path: Path, shelf: MadeShelf, endpoint: str) -> Remote:
    """A folder of its own."""
    made = Remote(tmp_path, shelf)
    made.endpoint = endpoint
    return made


def test_result_log_and_figures_come_back(remote: Remote) -> None:
    """The environment goes along: it was chosen here, for the runner's target, and nobody published it."""
    ran = remote.run("prints.py", "-a", "5")
    assert ran.ok() == '"5"'
    assert "the value is 5\n" in ran.stderr
    assert "to standard error\n" in ran.stderr
    assert " MB of packages, " in ran.stderr
    again = remote.run("prints.py", "-a", "6", "--endpoint-url", remote.endpoint)
    assert again.ok() == '"6"'  # by a process of its own, in the sandbox that ran the other


def test_each_function_of_a_graph_is_an_invocation(remote: Remote) -> None:
    """Results travel as arguments; each has the environment that it says."""
    assert json.loads(remote.run("graph.py", "--path", "x").ok()) == {"sum": 6}


def test_errors_come_with_their_traceback(remote: Remote) -> None:
    """As they do here."""
    ran = remote.run("fails.py")
    assert ran.returncode == 1
    assert 'fails.py", line 6, in broken\n    return inner["nothing"]' in ran.stderr
    assert "shelf: error: broken: KeyError: 'nothing'" in ran.stderr
    assert "both was not run: broken has no result" in ran.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        pytest.param("nan", "nan() returned what is not JSON: the float nan", marks=pytest.mark.long),
        ("leaves", "leaves() ended its process with status 3"),
        pytest.param("dies", "dies() died of signal 11", marks=pytest.mark.long),
        pytest.param("endless", "endless() was stopped after 7.", marks=pytest.mark.long),
        pytest.param("forks", "", marks=pytest.mark.long),
    ],
)
def test_hostile_functions_do_not_take_the_runner_along(remote: Remote, name: str, said: str) -> None:
    """The next one runs in the same sandbox."""
    ran = remote.run("hostile.py", "--function", name, to="two")
    assert ran.returncode == (1 if said else 0)
    assert said in ran.stderr.splitlines()[-1]
    assert remote.run("hostile.py", "--function", "steers", to="two").ok() == r'"\ud800\u001b"'


@pytest.mark.long
def test_an_interrupt_does_not_wait_for_lambda(remote: Remote) -> None:
    """Which goes on until its time is over."""
    path = remote.write("waits.py", "import time\ndef f():\n    time.sleep(60)\n")
    code = "import sys; from shelf_tools.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "run", str(path), "--remote", "two"]
    env = publisher_environment({**remote.keys(), **remote.env})
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(2)  # it has been sent by then, or it is about to be
        process.send_signal(signal.SIGINT)
        assert "interrupted" in process.communicate(timeout=5)[1]
    assert process.returncode == 130


def test_what_is_too_large_is_not_sent(remote: Remote) -> None:
    """And what it is made of is said."""
    path = remote.write("sized.py", f"def f(*values):\n    return len(values)\n#{'x' * 4_000_000}\n")
    word = ["-a", "y" * (100 << 10)]
    assert remote.run(path, *(word * 5)).ok() == "5"
    ran = remote.run(path, *(word * 10))
    assert ran.returncode == 1
    assert "f() is sent with 63" in ran.stderr
    assert "(code 53" in ran.stderr
    assert "and Lambda takes 6291456" in ran.stderr


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("nobody", "Lambda does not run nobody: ResourceNotFoundException: Function not found: nobody"),
        ("other", "other is no runner: the handler of one is runner.handler ("),
        ("fails", "fails failed: ValueError: no"),
    ],
)
def test_errors_of_the_service_are_one_line(remote: Remote, to: str, said: str) -> None:
    """Before anything runs."""
    ran = remote.run("random.py", to=to)
    assert ran.returncode == 1
    *log, line = ran.stderr.splitlines()
    assert line.startswith("shelf: error: ")
    assert said in line
    assert bool(log) == (to == "fails")  # of which the log says more


def test_a_service_that_is_not_there_is_one_line(remote: Remote) -> None:
    """Nor are credentials."""
    ran = remote.run("random.py", "--endpoint-url", "http://127.0.0.1:9")
    assert ran.returncode == 1
    assert "Lambda cannot be asked to run one: Could not connect" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
