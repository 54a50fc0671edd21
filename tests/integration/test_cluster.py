"""``shelf publish --executor dask=…``: a real scheduler and two workers, one of them killed in the middle."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from cloudimport.ids import Pin, running_targets
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.builds import read_build
from shelf_tools.workers import WorkerError, open_workers
from tests.support.children import REPOSITORY, Runner
from tests.support.clusters import Cluster, Worker, dask_cluster, processes_with, wait_for
from tests.support.packageindex import package_index
from tests.support.s3servers import S3Server, moto_server
from tests.support.shelfcommand import publisher_environment, run_shelf
from tests.support.wheels import build_wheel
from tests.support.wiretap import wiretap

TARGET = str(running_targets()[0])
#: Packages that take a moment to be imported, so that there is a middle.
SLOW = 6
NAMES = ("base", *(f"slow{number}" for number in range(SLOW)))
PINS = [f"{name}==1.0" for name in NAMES]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose only packages are those of these tests."""
    folder = tmp_path_factory.mktemp("wheels")
    build_wheel(
        folder, "base", "1.0", {"base/__init__.py": "x = 1\n", "base/noise.bin": bytes(range(256)) * 900}
    )
    for name in NAMES[1:]:
        code = f"import base, time\ntime.sleep(0.7)\nfrom {name} import z, a\n"
        files = {
            f"{name}/__init__.py": code,
            f"{name}/a.py": f"a = {name!r}\n" * 200,
            f"{name}/z.py": "z = 2\n",
        }
        build_wheel(folder, name, "1.0", files, requires=["base"])
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "UV_OFFLINE": "1"}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """A store that every worker reaches."""
    with moto_server() as running:
        yield running


class Curator:
    """Publishes with a cluster; what the workers need to know is in their environment only."""

    def __init__(self, folder: Path, shelf: str, environ: dict[str, str]) -> None:
        self.folder, self.shelf, self.environ = folder, shelf, environ
        self.lock = folder / "cloudimport.lock"
        (folder / "tmp").mkdir(parents=True)
        (folder / "requirements.txt").write_text("".join(f"{pin}\n" for pin in PINS))

    def command(self, *options: str) -> list[str]:
        """Return the arguments of ``shelf`` that publish."""
        where = ["--shelf", self.shelf, "--lock", str(self.lock)]
        return ["publish", "-r", str(self.folder / "requirements.txt"), *where, *options]

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Begin to publish."""
        code = "import sys; from shelf_tools.cli import main; sys.exit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", code, *self.command(*options)],
            env=publisher_environment({**self.environ, "TMPDIR": str(self.folder / "tmp")}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def contents(self) -> dict[str, str]:
        """Return the digest of each pin's content, each in traced order."""
        source = open_source(self.shelf, SourceConfig(environ=self.environ))
        found = {}
        for pin in PINS:
            built = read_build(source, Pin.parse(pin), TARGET)
            assert built is not None, pin
            assert (built.layout.order, built.layout.traced, bool(built.layout.code)) == ("trace", "", True)
            found[pin] = built.content_digest
            if pin.startswith("slow"):
                assert built.layout.follow == {"base": ("base/__init__.py",)}
        source.close()
        return found

    def check(self) -> None:
        """All is there as when one process publishes it, and nothing else."""
        verified = run_shelf("verify", "--shelf", self.shelf, env=self.environ).ok()
        assert verified == f"{len(PINS)} builds checked, 0 problems"
        code = "import cloudimport\ncloudimport.install()\nimport slow3\nprint(slow3.a.a, slow3.base.x)\n"
        env = {**self.environ, "CLOUDIMPORT_LOCK": str(self.lock)}
        assert Runner(self.folder / "home").run(code, env=env).ok() == "slow3 1"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, index: dict[str, str]) -> dict[str, str]:
    """The contents that this machine's processes publish."""
    folder = tmp_path_factory.mktemp("expected")
    curator = Curator(folder, str(folder / "shelf"), index)
    run_shelf(*curator.command("--sandbox", "none"), env=index).ok()
    return curator.contents()


@pytest.mark.parametrize(
    "moment", [pytest.param("install_wheel.py", marks=pytest.mark.long), "trace_import.py"]
)
def test_a_worker_that_is_killed_loses_nothing(
    tmp_path: Path, index: dict[str, str], server: S3Server, expected: dict[str, str], moment: str
) -> None:
    """Killed while it installs, or while it traces: its work is done by the other, all of it."""
    bucket = server.make_bucket(f"killed-{moment[:5]}")
    curator = Curator(tmp_path / "curator", f"s3://{bucket}/shelf", server.environ)
    with dask_cluster(tmp_path, {**index, **server.environ}) as cluster:
        publishing = curator.start("--executor", cluster.executor)
        victim = _first_with(cluster, moment)
        victim.kill()
        _, said = publishing.communicate(timeout=300)
        assert publishing.returncode == 0, said
        wait_for(lambda: not processes_with(str(victim.folder)), "what the dead worker had started is gone")
        assert "Traceback" not in said
        left = [path for worker in cluster.workers if worker is not victim for path in _left(worker)]
        assert left == []
    assert curator.contents() == expected
    curator.check()


def _first_with(cluster: Cluster, script: str) -> Worker:
    wait_for(lambda: any(worker.runs(script) for worker in cluster.workers), f"a worker runs {script}")
    return next(worker for worker in cluster.workers if worker.runs(script))


def _left(worker: Worker) -> list[Path]:
    return list(worker.folder.glob("cloudimport-*"))


def test_a_curator_who_is_killed_goes_on_later(
    tmp_path: Path, index: dict[str, str], server: S3Server, expected: dict[str, str]
) -> None:
    """Killed between two pins, and run again: what was published is found, the rest is made."""
    bucket = server.make_bucket("resumed")
    curator = Curator(tmp_path / "curator", f"s3://{bucket}/shelf", server.environ)
    client = server.client()
    with dask_cluster(tmp_path, {**index, **server.environ}) as cluster:
        publishing = curator.start("--executor", cluster.executor)

        def pointers() -> int:
            found = client.list_objects_v2(Bucket=bucket).get("Contents", ())
            return sum(entry["Key"].endswith("/build.json") for entry in found)

        wait_for(lambda: pointers() >= 2, "two builds are visible")
        publishing.kill()
        publishing.communicate()
        before = pointers()
        again = run_shelf(*curator.command("--executor", cluster.executor), env=server.environ)
        assert f"{len(PINS) - before} published, {before} were there" in again.ok()
    assert 2 <= before < len(PINS)
    assert curator.contents() == expected
    curator.check()


def test_work_is_shared(tmp_path: Path, index: dict[str, str], server: S3Server) -> None:
    """Both workers fetch, install and trace; the curator's machine does none of it, nor needs the index."""
    bucket = server.make_bucket("shared")
    curator = Curator(tmp_path / "curator", f"s3://{bucket}/shelf", {**server.environ, "PIP_NO_INDEX": "1"})
    with dask_cluster(tmp_path, {**index, **server.environ}) as cluster:
        publishing = curator.start("--executor", cluster.executor)
        seen: set[Path] = set()
        while publishing.poll() is None:
            seen |= {worker.folder for worker in cluster.workers if worker.runs("trace_import.py")}
            time.sleep(0.02)
        out, said = publishing.communicate()
    assert publishing.returncode == 0, said
    assert f"{len(PINS)} published" in out
    assert seen == {worker.folder for worker in cluster.workers}
    source = open_source(curator.shelf, SourceConfig(environ=server.environ))
    key = next(
        entry["Key"].removeprefix("shelf/")
        for entry in server.client().list_objects_v2(Bucket=bucket)["Contents"]
        if "/provenance-" in entry["Key"]
    )
    record = json.loads(zstandard.ZstdDecompressor().decompress(source.read(key)))
    assert record["sandbox"] == "bubblewrap"
    source.close()


def test_errors_of_workers(tmp_path: Path, index: dict[str, str]) -> None:
    """What fails on a worker is said as if it had failed here; of no cluster, where there is none."""
    curator = Curator(tmp_path / "curator", str(tmp_path / "shelf"), {})
    requirements = tmp_path / "curator/requirements.txt"
    requirements.write_text("base==1.0\nbase2==7\n")
    with dask_cluster(tmp_path, index, workers=1) as cluster:
        ran = run_shelf(*curator.command("--executor", cluster.executor))
        assert ran.returncode == 1
        assert "requirements.txt:2: base2==7: no package of this name is known" in ran.stderr
    ran = run_shelf(*curator.command("--executor", cluster.executor))
    assert ran.returncode == 1
    assert f"no Dask scheduler answers at {cluster.address}" in ran.stderr
    assert "Traceback" not in ran.stderr


def _modified(folder: Path, code: str) -> dict[str, str]:
    """Return the environment of a worker that runs ``code`` when it starts: it is another one then."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}


#: What a worker runs that cannot publish, and what is said of it.
BROKEN = (
    (
        "import sys; sys.modules['shelf_tools'] = None",
        "ModuleNotFoundError.*shelf_tools.*: install cloudimport .* there",
    ),
    (
        "import cloudimport; cloudimport.__version__ = '0.0.1'",
        r"has cloudimport 0\.0\.1, Python \S+, and here is cloudimport \S+, Python \S+: install the same",
    ),
    (
        "import shelf_tools.stages; del shelf_tools.stages.survey",
        "AttributeError.*survey.*: install cloudimport .* there",
    ),
    (
        "import shelf_tools.stages as s\ndef f(*_): raise ImportError('no libzstd')\ns.survey = f",
        "ImportError: no libzstd: install cloudimport .* there",
    ),
)


def test_workers_that_cannot_work(tmp_path: Path, index: dict[str, str]) -> None:
    """A line for each, beside one that can: nothing is begun."""
    curator = Curator(tmp_path / "curator", str(tmp_path / "shelf"), {})
    with dask_cluster(tmp_path, index, workers=1) as cluster:
        for number, (code, _) in enumerate(BROKEN):
            cluster.add({**index, **_modified(tmp_path / f"modified-{number}", code)})
        ran = run_shelf(*curator.command("--executor", cluster.executor))
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    lines = [line for line in ran.stderr.splitlines() if line.startswith("shelf: error: worker tcp://")]
    for _, said in BROKEN:
        assert len([line for line in lines if re.search(said, line)]) == 1, (said, lines)
    assert ran.stderr.count("shelf: error: ") == len(BROKEN)
    assert not list((tmp_path / "shelf").rglob("build.json"))


def test_a_worker_that_comes_later(tmp_path: Path) -> None:
    """Its version is looked at with each task; what a task raises names the task and the worker."""
    with dask_cluster(tmp_path, {}, workers=1) as cluster:
        workers = open_workers(cluster.executor, 1)
        try:
            (own,) = workers.everywhere(os.getpid)
            with pytest.raises(WorkerError, match=rf"a: test: worker {own}: TypeError: .*integer"):
                list(workers.each("test", chr, {"a": ("x",)}))
            cluster.add(_modified(tmp_path / "modified", "import cloudimport; cloudimport.__version__ = '0'"))
            cluster.workers[0].kill()
            said = r"b: test: worker \S+ has cloudimport 0, .*: install the same"
            with pytest.raises(WorkerError, match=said):
                list(workers.each("test", chr, {"b": (98,)}))
            cluster.workers[1].kill()
            with pytest.raises(WorkerError, match=r"no worker of the Dask cluster at .* answers"):
                workers.everywhere(os.getpid)
        finally:
            workers.close()


def test_interpreters_are_the_workers(tmp_path: Path, index: dict[str, str], server: S3Server) -> None:
    """``--python`` is looked for on the workers only, each of which says that it has it not."""
    bucket = server.make_bucket("pythons")
    curator = Curator(tmp_path / "curator", f"s3://{bucket}/shelf", server.environ)
    (tmp_path / "curator/requirements.txt").write_text("base==1.0\n")
    missing = tmp_path / "nonexistent/python"
    only = f"""
import shelf_tools.interpreters as i
probe = i._probe
i._probe = lambda path, python: probe(i._running() if str(path) == {str(missing)!r} else path, python)
"""
    with dask_cluster(tmp_path, {**index, **server.environ}, workers=2) as cluster:
        command = curator.command("--executor", cluster.executor, "--python", str(missing))
        ran = run_shelf(*command, env=server.environ)
        for worker in cluster.workers:
            said = rf"^shelf: error: worker (tcp://\S+): {missing} is not a CPython"
            assert len(set(re.findall(said, ran.stderr, re.MULTILINE))) == 2
            worker.kill()
        # Workers that have it, where this machine has none.
        cluster.add({**index, **server.environ, **_modified(tmp_path / "modified", only)})
        run_shelf(*command, env=server.environ).ok()


def test_targets_go_as_the_workers_trace(tmp_path: Path, index: dict[str, str], server: S3Server) -> None:
    """The target that the workers run comes first, whatever this machine runs: the other takes its order."""
    bucket = server.make_bucket("targets")
    here, there = TARGET, TARGET.replace("x86_64", "aarch64")
    if here == there:
        there = TARGET.replace("aarch64", "x86_64")
    curator = Curator(tmp_path / "curator", f"s3://{bucket}/shelf", server.environ)
    (tmp_path / "curator/requirements.txt").write_text("base==1.0\nslow0==1.0\n")
    other = f"import shelf_tools.interpreters as i; i.runs_here = lambda target: str(target) == {there!r}"
    with dask_cluster(tmp_path, {}, workers=0) as cluster:
        cluster.add({**index, **server.environ, **_modified(tmp_path / "modified", other)})
        targets = ["--target", here, "--target", there]
        ran = run_shelf(*curator.command("--executor", cluster.executor, *targets), env=server.environ)
    ran.ok()
    said = (
        f"packages for {here} cannot be imported where the workers run: 2 ordered by their trace for {there}"
    )
    assert said in ran.stderr
    source = open_source(curator.shelf, SourceConfig(environ=server.environ))
    traced = [read_build(source, Pin.parse("slow0==1.0"), target) for target in (here, there)]
    source.close()
    assert [(one.layout.order, one.layout.traced) for one in traced if one] == [
        ("trace", there),
        ("trace", ""),
    ]


@pytest.mark.parametrize("way", ["none", "netrc", "variable"])
def test_no_password_reaches_a_worker(tmp_path: Path, server: S3Server, way: str) -> None:
    """Those in the list's URLs stay here; workers have their own, in .netrc or in a variable."""
    bucket = server.make_bucket(f"password-{way}")
    curator = Curator(tmp_path / "curator", f"s3://{bucket}/shelf", server.environ)
    (tmp_path / "wheels").mkdir()
    build_wheel(tmp_path / "wheels", "base", "1.0", {"base/__init__.py": "x = 1\n"})
    environ = {**server.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "", "NETRC": os.devnull}
    if way == "netrc":
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret-1\n")
        environ["NETRC"] = str(tmp_path / "netrc")
    user = "me:${THE_PASSWORD}@" if way == "variable" else "me:secret-1@"
    with (
        package_index(tmp_path / "wheels", "me:secret-1") as pages,
        dask_cluster(tmp_path, {**environ, "THE_PASSWORD": "secret-1"}, workers=1) as cluster,
        wiretap(cluster.address) as tap,
    ):
        host = pages.endpoint.removeprefix("http://")
        listed = f"--index-url http://{user}{host}/simple\nbase==1.0\n"
        (tmp_path / "curator/requirements.txt").write_text(listed)
        ran = run_shelf(*curator.command("--executor", f"dask={tap.address}"), env=server.environ)
        asked = [request.headers.get("authorization", "") for request in pages.requests]
    note = "note: user names and passwords in the list's URLs are not sent to the workers"
    assert (note in ran.stderr) is (way != "variable")
    assert host.encode() in tap.sent
    assert b"secret" not in tap.sent
    assert (ran.returncode == 0) is (way != "none"), ran.stderr
    assert asked
    assert any(asked) is (way != "none")


def test_a_worker_with_another_shelf(tmp_path: Path, index: dict[str, str]) -> None:
    """A shelf that is another one where the worker is: that is said, and nothing points to it."""
    with moto_server() as here, moto_server() as there:
        here.make_bucket("bucket")
        there.make_bucket("bucket")
        run_shelf(
            "publish", "-r", _one(tmp_path), "--shelf", "s3://bucket/s", env={**index, **there.environ}
        ).ok()
        curator = Curator(tmp_path / "curator", "s3://bucket/s", here.environ)
        with dask_cluster(tmp_path, {**index, **there.environ}, workers=1) as cluster:
            ran = run_shelf(*curator.command("--executor", cluster.executor), env=here.environ)
        assert ran.returncode == 1
        lines = re.findall(r"(\S+): what tcp://\S+ uploaded is not on s3://bucket/s: does it use", ran.stderr)
        assert sorted(lines) == sorted(str(Pin.parse(pin)) for pin in PINS)
        keys = [entry["Key"] for entry in here.client().list_objects_v2(Bucket="bucket")["Contents"]]
        assert sorted(keys) == ["s/shelf.json", "s/status.json"]


def _one(folder: Path) -> Path:
    path = folder / "one.txt"
    path.write_text("base==1.0\n")
    return path
