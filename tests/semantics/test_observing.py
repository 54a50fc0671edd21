"""Observing: what a process says of its cold start, and of what it has loaded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.semantics.conftest import World
from tests.support.children import Ran

LOG = {"CLOUDIMPORT_LOG": "1"}
#: Waits until something is on standard error, which the script has put into a file (seconds: 20 at most).
WAIT = """
import time
sys.stderr = open(sys.argv[1], "w")
def lines():
    for _ in range(400):
        with open(sys.argv[1]) as file:
            found = file.read().splitlines()
        if found:
            return found
        time.sleep(.05)
"""


def _lines(ran: Ran) -> list[dict[str, Any]]:
    ran.ok()
    return [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]


def test_one_line_for_a_cold_start(world: World) -> None:
    """With `CLOUDIMPORT_LOG=1` (the default in Lambda) a process writes one line of JSON to standard error
    when its first imports are through, not only when it ends: what was fetched, cached, written and waited
    for, and which packages were loaded; `install()` alone says nothing before the end.
    """
    path = world.folder / "errors"
    out = world.run(
        """
        import demo.sub.late, single
        lines()
        import left
        print(len(lines()))
        """,
        str(path),
        prelude=world.install() + WAIT,
        env=LOG,
    )
    assert out == "1"
    [line] = [json.loads(text) for text in path.read_text().splitlines()]
    assert (line["level"], line["message"], line["complete"]) == ("INFO", "cold start", True)
    assert list(line["loaded"]) == ["demo==1.2"]
    assert line["packages"] == 1
    assert line["modules"] == 4
    assert line["environment"] == world.shelf.environment().digest
    assert line["requests"] > 1
    assert line["bytes_cached"] > 1000
    assert 0 < line["import_seconds"] < 60
    assert 0 < line["install_seconds"] < 60


def test_short_programs_and_quiet_ones(world: World) -> None:
    """A process that ends before says it then; by default, and in its children and forks, nothing is said."""
    both = """
        import subprocess
        subprocess.run([sys.executable, "-c", "import demo"], check=True)
        faulthandler.cancel_dump_traceback_later()  # whose thread a fork does not have, and waits for
        if os.fork() == 0:
            import single
            sys.exit()
        os.wait()
        import left
    """
    [line] = _lines(world.start(both, env=LOG))
    assert list(line["loaded"]) == ["left==1", "right==2"]
    assert _lines(world.start(both)) == []
    assert len(_lines(world.start(both, env={"AWS_LAMBDA_FUNCTION_NAME": "f"}))) == 1


CLIENT = """
import sys, types
class LambdaRuntimeClient:
    def wait_next_invocation(self):
        return "event"
module = types.ModuleType("awslambdaric.lambda_runtime_client")
module.LambdaRuntimeClient = LambdaRuntimeClient
sys.modules[module.__name__] = module
before = dict(vars(LambdaRuntimeClient))
def handle_event_request(handler):
    handler()
"""


@pytest.mark.parametrize("imports", ["top", "handler"])
def test_a_function_that_is_called_once(world: World, imports: str) -> None:
    """In Lambda the line comes at the latest when the first invocation has ended, before the sandbox is
    frozen: when AWS' client asks for the next event.
    """
    path = world.folder / "errors"
    out = world.run(
        f"""
        import time
        sys.stderr = open(sys.argv[1], "w")
        time.sleep = lambda seconds, sleep=time.sleep: sleep(60)  # a thread that never gets to run
        client = LambdaRuntimeClient()
        if {imports == "top"}:
            import demo
        first = client.wait_next_invocation()
        def handler():
            import demo
        handle_event_request(handler)
        print(first, open(sys.argv[1]).read().count("cold start"), client.wait_next_invocation())
        print(open(sys.argv[1]).read().count("cold start"), dict(vars(LambdaRuntimeClient)) == before)
        """,
        str(path),
        prelude=CLIENT + world.install(),
        env={"AWS_LAMBDA_FUNCTION_NAME": "f", "PYTHONWARNINGS": "ignore"},
    )
    assert out == "event 0 event\n1 True"


def test_the_log_level(world: World) -> None:
    """The level is `CLOUDIMPORT_LOG_LEVEL`, else Lambda's own `AWS_LAMBDA_LOG_LEVEL`: above INFO there is no
    line, at DEBUG one more for each read of the store.
    """

    def said(**env: str) -> list[str]:
        cache = world.install(str(world.folder / repr(sorted(env.items()))[:40].replace("/", "")))
        return [line["message"] for line in _lines(world.start("import demo", prelude=cache, env=env))]

    assert said(AWS_LAMBDA_FUNCTION_NAME="f", AWS_LAMBDA_LOG_LEVEL="WARN") == []
    assert said(CLOUDIMPORT_LOG="1", CLOUDIMPORT_LOG_LEVEL="info", AWS_LAMBDA_LOG_LEVEL="WARN") == [
        "cold start"
    ]
    lines = said(CLOUDIMPORT_LOG="1", CLOUDIMPORT_LOG_LEVEL="DEBUG")
    assert set(lines) == {"read", "cold start"}
    assert lines.count("cold start") == 1  # in whose course or after which it is asked what is yanked
    ran = world.start("", env={"CLOUDIMPORT_LOG_LEVEL": "loud"})
    assert "CLOUDIMPORT_LOG_LEVEL='loud' is none of TRACE, DEBUG" in ran.stderr


def test_metrics(world: World) -> None:
    """With a namespace in `CLOUDIMPORT_METRICS` the line is also one of CloudWatch's embedded metric format:
    each metric that it names is a number beside it, and so is the dimension's value a text.
    """
    [line] = _lines(world.start("import demo", env={"CLOUDIMPORT_METRICS": "Imports"}))
    assert line["_aws"]["Timestamp"] > 1.6e12
    [directive] = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Imports"
    assert all(isinstance(line[name], str) for dimensions in directive["Dimensions"] for name in dimensions)
    assert len(directive["Metrics"]) > 5
    assert all(type(line[metric["Name"]]) in (int, float) for metric in directive["Metrics"])
    assert {metric["Unit"] for metric in directive["Metrics"]} == {"Count", "Bytes", "Seconds"}


def test_what_was_loaded(world: World) -> None:
    """`cloudimport.loaded()` has the packages whose code has run, `name==version` with the digest of its
    content, and `CLOUDIMPORT_LOADED` a file that gets them, with the number of modules of each.
    """
    path = world.folder / "loaded.json"
    out = world.run(
        """
        print(cloudimport.loaded())
        import left, nsp.a
        import importlib.metadata; importlib.metadata.version("demo")
        print(list(cloudimport.loaded()), {len(digest) for digest in cloudimport.loaded().values()})
        cloudimport.uninstall()
        print(cloudimport.loaded())
        """,
        env={"CLOUDIMPORT_LOADED": str(path)},
    )
    assert out == "{}\n['left==1', 'nsp-a==1', 'right==2'] {64}\n{}"
    record = json.loads(path.read_text())
    assert record["modules"] == {"left==1": 2, "nsp-a==1": 1, "right==2": 2}
    assert list(record["loaded"]) == list(record["modules"])
    assert record["shelf"] == f"file://{world.shelf.url}"


@pytest.mark.parametrize("namespace", ["AWS/Lambda", "n" * 300])
def test_a_namespace_that_cloudwatch_refuses(world: World, namespace: str) -> None:
    """A namespace that CloudWatch would refuse is an error of `install()`, in one line."""
    ran = world.start("", env={"CLOUDIMPORT_METRICS": namespace})
    assert ran.stderr.splitlines()[-1].startswith(
        "cloudimport.errors.ConfigurationError: CLOUDIMPORT_METRICS="
    )


def test_what_went_to_disk(world: World) -> None:
    """`stats()` says what a cold start has put on the disk: files of the site tree and cached blocks, of
    which there are never more than `cache_limit`; a warm start writes nothing.
    """
    script = """
        import demo, left
        open(demo.__path__[0] + "/large.bin").close()
        found = cloudimport.stats()
        print(found["bytes_written"], found["bytes_cached"], found["cache_limit"])
    """
    written, cached, limit = map(
        int, map(float, world.run(script, env={"CLOUDIMPORT_CACHE_SIZE": "300M"}).split())
    )
    kept = sum(
        p.stat().st_size for p in (world.cache / "v1").rglob("*") if p.is_file() and "trees" not in p.parts
    )
    there = sum(p.stat().st_size for p in (world.cache / "v1/trees").rglob("*") if p.is_file())
    assert (written, cached, limit) == (there, kept, 300 << 20)
    assert world.run(script).split()[:2] == ["0", "0"]
