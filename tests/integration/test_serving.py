"""``shelf serve`` as its users see it: OpenLambda's way, AWS' way, packages from a shelf, what is shared."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from shelf_tools.status import unyank, yank
from tests.support.faulty import FaultyServer
from tests.support.installed import REQUESTS, publish_installed
from tests.support.serving import Served, mounts_of, serving, wait_until_gone
from tests.support.shelves import MadeShelf, write_tree

ENVIRON = "import os\n\ndef f(event):\n    return dict(os.environ)\n"
TICKING = """
import threading, time

ticks = []

def tick():
    while True:
        ticks.append(time.monotonic())
        time.sleep(0.01)

threading.Thread(target=tick, daemon=True).start()

def f(event):
    time.sleep(0.2)
    return max(b - a for a, b in zip(ticks, ticks[1:]))
"""
FUNCTIONS = {
    "echo/f.py": "def f(event):\n    return event\n",
    "path/f.py": "import sys\n\ndef f(event):\n    return sys.path\n",
    "bad/f.py": "def f(event):\n    raise ValueError('no good: ' + event)\n",
    "aws/lambda_function.py": (
        "import json, logging\n\n"
        "def handler(event, context):\n"
        "    print('said by the function')\n"
        "    if event.get('fail'):\n"
        "        raise KeyError('fail')\n"
        "    custom = context.client_context.custom if context.client_context else None\n"
        "    left = context.get_remaining_time_in_millis()\n"
        "    return {'event': event, 'name': context.function_name, 'custom': custom, 'left': left,\n"
        "            'arn': context.invoked_function_arn, 'request': context.aws_request_id}\n"
    ),
    "uses/f.py": (
        "import requests, certifi\n"
        "import cloudimport\n\n"
        "def f(event):\n"
        "    if event == 'other':\n"
        "        import moto\n"
        "    roots = len(open(certifi.where()).read())\n"
        "    return {'file': requests.__file__, 'roots': roots, 'stats': cloudimport.stats()}\n"
    ),
    "listed/f.py": "import idna\n\ndef f(event):\n    return idna.__version__\n",
    "one/f.py": ENVIRON,
    "two/f.py": ENVIRON,
    "three/f.py": ENVIRON,
    "two.env": "# own\nAWS_ACCESS_KEY_ID=own\nAWS_SECRET_ACCESS_KEY=s\nCOLOUR=red\n",
    "three.env": "AWS_PROFILE=team\n",
    "unknown/f.py": "f = len\n",
    "unknown/requirements.txt": "nothing==1.0\n",
    "ticking/f.py": TICKING,
    "broken/f.py": "def f(event)\n",
    "empty/note.txt": "",
}


def cache_of(folder: Path, served: Served) -> Path:
    """Return a cache that has what every server would compile, and nothing else."""
    shutil.copytree(served.cache / "serve" / "runtimes", folder / "cache" / "serve" / "runtimes")
    return folder / "cache"


class World:
    """A shelf behind HTTP that counts, and functions that use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "work").mkdir()
        self.shelf = MadeShelf(folder / "work")
        publish_installed(self.shelf, *REQUESTS)
        self.shelf.environment()
        self.functions = write_tree(folder / "functions", FUNCTIONS)
        for name, file in (("uses", self.shelf.lock), ("listed", self.shelf.requirements)):
            (self.functions / name / file.name).write_bytes(file.read_bytes())
        keys = "[team]\naws_access_key_id = t\naws_secret_access_key = u\n"
        write_tree(folder / "aws", {"credentials": keys})
        self.server = FaultyServer(Path(self.shelf.url))

    @property
    def env(self) -> dict[str, str]:
        """The environment of the server."""
        return {
            "CLOUDIMPORT_SHELF": "s3://bucket",
            "AWS_ENDPOINT_URL_S3": self.server.endpoint,
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1",
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "aws" / "credentials"),
            "OTHER": "secret",
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A shelf and functions, made once."""
    one = World(tmp_path_factory.mktemp("serving"))
    with one.server:
        yield one


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[Served]:
    """A server of these functions, for all tests that leave it as it was."""
    with serving(world.functions, world.folder / "cache", env=world.env) as one:
        assert one.run("echo", 1).value == 1  # the runtime is compiled then
        yield one


def test_openlambda_s_way(served: Served) -> None:
    """An event comes in as JSON and goes out as JSON; no JSON is 400, an error 500 with its traceback."""
    for event in ({"a": [1, "ä"]}, None, "text", 0):
        said = served.run("echo", event)
        assert (said.status, said.value) == (200, event)
    assert served.ask("/run/echo/more?x=1", b"1").value == 1
    assert served.ask("/run/echo", b"{").status == 400
    said = served.run("bad", "x")
    assert said.status == 500
    assert "ValueError: no good: x" in said.text
    assert '/var/task/f.py", line 2, in f' in said.text
    assert served.run("path").value[0] == "/var/task"


def test_what_is_no_function_is_not_found(served: Served) -> None:
    """Names that are paths, folders without a handler, other places: 404, and nothing is run."""
    for name in ("nothing", "empty", "..", "%2e%2e", "..%2fecho", "echo%2f..%2fbad", "a%00b", "x" * 300):
        assert served.run(name).status == 404, name
        assert served.invoke(name).status == 404, name
    assert served.ask("/other", b"1").status == 404
    assert served.ask("/").status == 404


def test_a_function_that_does_not_start(served: Served) -> None:
    """A module with a wrong syntax is an error of the function, told each time."""
    for _ in range(2):
        said = served.invoke("broken")
        assert said.status == 200
        assert said.headers["x-amz-function-error"] == "Unhandled"
        assert said.value["errorType"] == "Runtime.UserCodeSyntaxError"
    assert "Runtime.UserCodeSyntaxError" in served.run("broken").text


def test_aws_s_way(served: Served) -> None:
    """Result, context, version and the tail of the log, as Invoke's reference says."""
    said = served.invoke("aws", {"a": 1}, log_type="Tail", client_context=_encoded({"custom": {"k": "v"}}))
    assert said.status == 200
    assert said.value["event"] == {"a": 1}
    assert said.value["custom"] == {"k": "v"}
    assert said.value["name"] == "aws"
    assert 0 < said.value["left"] <= 30_000
    assert said.headers["x-amz-executed-version"] == "$LATEST"
    assert said.value["request"] == said.headers["x-amzn-requestid"]
    tail = base64.b64decode(said.headers["x-amz-log-result"]).decode()
    assert f"START RequestId: {said.value['request']} Version: $LATEST" in tail
    assert "said by the function" in tail
    assert "REPORT RequestId:" in tail
    assert "x-amz-function-error" not in said.headers


def test_aws_s_errors(served: Served) -> None:
    """A handler's error is a 200 that says so; what cannot be invoked has AWS' status and type."""
    said = served.invoke("aws", {"fail": 1})
    assert (said.status, said.headers["x-amz-function-error"]) == (200, "Unhandled")
    assert said.value["errorType"] == "KeyError"
    expected = {
        (404, "ResourceNotFoundException"): served.invoke("missing"),
        (400, "InvalidRequestContentException"): served.invoke("aws", b"{"),
        (413, "RequestTooLargeException"): served.invoke("aws", b'"' + b"x" * (6 << 20) + b'"'),
        (400, "InvalidParameterValueException"): served.invoke("aws", {}, invocation_type="Never"),
    }
    for (status, kind), answer in expected.items():
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, kind)
    assert served.ask("/run/echo", b"1", {"Origin": "http://elsewhere"}).status == 403


def test_dry_run_and_event(served: Served, world: World) -> None:
    """A dry run runs nothing; an event is taken at once and runs later, once."""
    before = served.status()["functions"]["echo"]["invocations"]
    assert served.invoke("echo", 1, invocation_type="DryRun").status == 204
    assert served.invoke("missing", 1, invocation_type="DryRun").status == 404
    assert served.status()["functions"]["echo"]["invocations"] == before
    said = served.invoke("echo", 1, invocation_type="Event")
    assert (said.status, said.body) == (202, b"")
    for _ in range(200):
        if served.status()["functions"]["echo"]["invocations"] == before + 1:
            return
        time.sleep(0.05)
    raise AssertionError("the event was not run")


def test_boto3_works(served: Served) -> None:
    """The client of AWS' SDK, with only its endpoint changed."""
    client = boto3.client(
        "lambda",
        endpoint_url=served.url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(proxies={}, retries={"max_attempts": 1}),
    )
    answer = client.invoke(FunctionName="aws", Payload=b'{"x": 1}', LogType="Tail")
    assert answer["StatusCode"] == 200
    assert json.loads(answer["Payload"].read())["event"] == {"x": 1}
    assert answer["ExecutedVersion"] == "$LATEST"
    assert "said by the function" in base64.b64decode(answer["LogResult"]).decode()
    arn = "arn:aws:lambda:us-east-1:123456789012:function:aws"
    assert client.invoke(FunctionName=arn, Payload=b'{"fail": 1}')["FunctionError"] == "Unhandled"
    assert client.invoke(FunctionName="aws", InvocationType="DryRun")["StatusCode"] == 204
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="missing")
    with pytest.raises(ClientError, match=r"RequestTooLarge|413|larger"):
        client.invoke(FunctionName="aws", Payload=b'"' + b"x" * (6 << 20) + b'"')


def test_packages_come_from_the_shelf(served: Served) -> None:
    """A lockfile's packages are imported; what it does not have is missing, as in production."""
    said = served.run("uses")
    assert said.status == 200, said.text
    assert said.value["file"].startswith("/tmp/cloudimport/")
    assert said.value["roots"] > 100_000
    missing = served.run("uses", "other")
    assert "ModuleNotFoundError: No module named 'moto'" in missing.text
    listed = served.run("listed")
    assert listed.status == 200, listed.text


def test_sandboxes_share_what_the_server_fetched(world: World, served: Served, tmp_path: Path) -> None:
    """Twelve at once, of an empty cache: the store is asked once for each object, by the server alone."""
    with serving(world.functions, cache_of(tmp_path, served), env=world.env) as own:
        before = len(world.server.requests)
        answers = [None] * 12

        def ask(number: int) -> None:
            answers[number] = own.run("uses").value["stats"]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(answers))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fetched = world.server.requests[before:]
        stats = [one for one in answers if one is not None]
        assert len(stats) == len(answers)
        assert {(one["requests"], one["bytes_fetched"]) for one in stats} == {(0, 0)}
        assert all(one["bytes_shared"] > 100_000 for one in stats)
        traffic = own.status()["tier"]
        assert traffic["objects"] == len(REQUESTS) + 1  # a pack of each, and the index
        assert len(fetched) == traffic["requests"] == traffic["objects"] + 1  # what is yanked
        assert own.status()["made"] <= len(answers)
        tier = list((tmp_path / "cache").rglob("pack-*"))
        assert len(tier) == len(REQUESTS)
        assert not any(path.stat().st_mode & 0o022 for path in tier)


def test_yanked_pins_are_the_server_s_to_heed(world: World, served: Served, tmp_path: Path) -> None:
    """A function with one runs, and the server says it; where it is to refuse, no sandbox starts."""
    pin = next(pin for pin in world.shelf.builds if pin.name == "idna")
    yank(world.shelf.store, pin, "CVE-0")
    try:
        with serving(world.functions, cache_of(tmp_path, served), env=world.env) as own:
            assert own.run("listed").status == 200
            assert f"listed: {pin} is yanked: CVE-0\n" in own.said
            (world.functions / "listed.env").write_text("CLOUDIMPORT_YANKED=refuse\n")
            said = own.run("listed")
            assert said.status >= 400
            assert f"{pin} is yanked: CVE-0" in said.text
    finally:
        (world.functions / "listed.env").unlink(missing_ok=True)
        unyank(world.shelf.store, pin)


@pytest.mark.long
def test_a_tier_that_is_too_small_says_so(world: World, served: Served, tmp_path: Path) -> None:
    """What does not fit is an error with both sizes and the flag, and other functions run."""
    with serving(world.functions, cache_of(tmp_path, served), "--tier-size", "10K", env=world.env) as own:
        said = own.invoke("uses")
        assert said.status == 502
        assert "may hold 10240 bytes" in said.value["Message"]
        assert "--tier-size" in said.value["Message"]
        assert own.run("echo", 1).value == 1


def test_what_is_not_published_is_named(served: Served) -> None:
    """A list that the shelf does not have is an error that names the package and the command."""
    said = served.invoke("unknown", [])
    assert said.status == 502
    assert "nothing==1" in said.value["Message"]
    assert "shelf publish" in said.value["Message"]


def test_credentials_are_the_function_s_own(served: Served) -> None:
    """The server's keys by name, and nothing else of its environment; a function's own come instead."""
    one, two, three = (served.run(name).value for name in ("one", "two", "three"))
    assert (one["AWS_ACCESS_KEY_ID"], one["AWS_SECRET_ACCESS_KEY"]) == ("a", "b")
    assert (two["AWS_ACCESS_KEY_ID"], two["AWS_SECRET_ACCESS_KEY"], two["COLOUR"]) == ("own", "s", "red")
    assert (three["AWS_ACCESS_KEY_ID"], three["AWS_SECRET_ACCESS_KEY"]) == ("t", "u")
    assert not any("OTHER" in each or "AWS_SHARED_CREDENTIALS_FILE" in each for each in (one, two, three))


def test_sandboxes_are_kept_and_let_go(world: World, served: Served, tmp_path: Path) -> None:
    """One is used again, and replaced when its code changes, when it is worn out, and when it is idle."""
    functions = write_tree(
        tmp_path / "f",
        {"one/f.py": "import os\ncount = []\n\ndef f(event):\n    count.append(1)\n    return len(count)\n"},
    )
    with serving(functions, cache_of(tmp_path, served), "--requests", "3", "--idle", "2") as own:
        assert [own.run("one").value for _ in range(4)] == [1, 2, 3, 1]
        assert len(own.instances("one")) == 1
        (functions / "one" / "f.py").write_text("def f(event):\n    return 'new'\n")
        assert own.run("one").value == "new"
        for _ in range(200):
            if not own.status()["sandboxes"]:
                break
            time.sleep(0.05)
        assert own.instances("one") == []
        assert own.run("one").value == "new"


def test_one_that_died_costs_no_request(served: Served) -> None:
    """A warm sandbox that something killed meanwhile is replaced before it is asked."""
    assert served.run("path").status == 200
    pids = {one["pid"] for one in served.instances("path")}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.01)
    said = served.run("path")
    assert said.status == 200, said.text
    assert not pids & {one["pid"] for one in served.instances("path")}


def test_between_invocations_nothing_runs(served: Served) -> None:
    """A thread that a function left behind stands still until the next invocation, as on AWS."""
    assert served.run("ticking").value < 1.0
    time.sleep(1.5)
    assert served.run("ticking").value > 1.0
    assert [one["served"] for one in served.instances("ticking")] == [2]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.long)])
def test_nothing_is_left(world: World, served: Served, tmp_path: Path, number: signal.Signals) -> None:
    """No process, no mount and no temporary file outlives the server, however it ends."""
    (tmp_path / "temporary").mkdir()
    env = {**world.env, "TMPDIR": str(tmp_path / "temporary")}
    with serving(world.functions, cache_of(tmp_path, served), env=env) as own:
        assert own.run("uses").status == 200
        assert own.run("echo", 1).value == 1
        running = own.processes()
        assert len(running) > 4
        own.stop(number)
        assert wait_until_gone(running) == set()
    assert list((tmp_path / "temporary").iterdir()) == []
    assert mounts_of(tmp_path) == []


def _encoded(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()
