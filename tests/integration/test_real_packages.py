"""Real packages from PyPI, published to real S3 servers and imported where none of them is installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from cloudimport.ids import running_targets
from tests.support.children import Ran, Runner
from tests.support.runtimes import find_python, install_packages, running_version
from tests.support.s3servers import S3Server
from tests.support.shelfcommand import run_shelf

HELLO = Path(__file__).parent / "hello"
#: Programs of the fast sample and the distributions that they need, on every version.
SAMPLE = {
    "requests": "requests certifi idna urllib3 charset-normalizer",
    "certifi": "certifi",
    "numpy": "numpy",
    "pandas": "pandas numpy python-dateutil six tzdata pytz",
    "lxml": "lxml",
    "cryptography": "cryptography cffi pycparser",
    "pydantic": "pydantic pydantic-core annotated-types typing-extensions typing-inspection",
    "jinja2": "jinja2 markupsafe",
    "yaml": "pyyaml",
    "tzdata": "tzdata",
    "bs4": "beautifulsoup4 soupsieve typing-extensions lxml",
    "PIL": "pillow",
}
REST = ("scipy", "sklearn", "matplotlib", "sqlalchemy", "boto3", "gcs", "networkx", "django")
#: Most requests of ``import pandas`` with a cold cache, index and pointer included; with a boot image.
PANDAS_REQUESTS, PANDAS_REQUESTS_BOOT = 24, 16
#: Imports pandas; says what was fetched when its first line ran, and in all.
PANDAS = """
import cloudimport, json, sys
cloudimport.install()
first = {}

def watch(frame, event, argument):
    if not first and frame.f_code.co_filename.endswith("/pandas/__init__.py"):
        first.update(cloudimport.stats())

sys.setprofile(watch)
import pandas
sys.setprofile(None)
print(json.dumps([first, cloudimport.stats()]))
"""
#: What the runtime itself needs; nothing else may be installed beside it.
RUNTIME = ("backports", "cloudimport")


#: What ``cloudimport.stats()`` returns.
Counts: TypeAlias = "dict[str, float]"


@dataclass(frozen=True)
class Published:
    """An environment on a shelf: where it is, and how it is reached."""

    url: str
    lock: Path
    requirements: Path
    environ: dict[str, str]
    version: str


def write_sample(version: str, folder: Path) -> Path:
    """Write the pins that the sample needs."""
    wanted = {name for names in SAMPLE.values() for name in names.split()}
    lines = (HELLO / f"requirements-{version}.txt").read_text().splitlines()
    path = folder / "requirements.txt"
    path.write_text("".join(line + "\n" for line in lines if line.partition("==")[0] in wanted))
    return path


def publish(server: S3Server, bucket: str, requirements: Path, version: str) -> Published:
    """Publish to a server by the command, as a curator does."""
    url, lock = f"s3://{bucket}/some/prefix", requirements.parent / f"{server.name}.lock"
    target = str(running_targets()[0])
    target = f"cp{version.replace('.', '')}-{target.partition('-')[2]}"
    ran = run_shelf(
        "publish",
        "-r",
        requirements,
        "--level",
        "3",
        "--shelf",
        url,
        "--lock",
        lock,
        "--target",
        target,
        env=server.environ,
    )
    assert "published" in ran.ok(), ran.stderr
    return Published(url, lock, requirements, server.environ, version)


@pytest.fixture(scope="module")
def requirements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's pins for the running interpreter."""
    return write_sample(running_version(), tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module", params=["moto", "radosgw"])
def published(request: pytest.FixtureRequest, requirements: Path) -> Published:
    """The sample on each S3 server."""
    server: S3Server = request.getfixturevalue(request.param)
    return publish(server, server.make_bucket("sample"), requirements, running_version())


@pytest.fixture(scope="module")
def expected(requirements: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A function from a program to what it prints with pip-installed packages."""
    folder = install_packages(running_version(), requirements, tmp_path_factory.mktemp("installed"))
    runner = Runner(
        tmp_path_factory.mktemp("home"), find_python(running_version()) or sys.executable, [str(folder)]
    )
    said: dict[str, str] = {}

    def get(name: str) -> str:
        if name not in said:
            said[name] = runner.run_script(HELLO / "programs.py", name).ok()
        return said[name]

    return get


def run_from_shelf(python: str, name: str, where: Published, home: Path, **extra: str) -> Ran:
    """Run a program in a fresh interpreter with the shelf's lock."""
    env = {
        **where.environ,
        "CLOUDIMPORT_LOCK": str(where.lock),
        "CLOUDIMPORT_CACHE": str(home / "cache"),
        **extra,
    }
    return Runner(home, python, []).run_script(HELLO / "from_shelf.py", name, env=env)


def report(ran: Ran) -> dict[str, object]:
    """Return the counts that ``from_shelf.py`` reports."""
    last = ran.stderr.strip().splitlines()[-1]
    found: dict[str, object] = json.loads(last)
    return found


@pytest.mark.network
@pytest.mark.parametrize("name", SAMPLE)
def test_same_result_as_pip(
    name: str,
    published: Published,
    expected: Callable[[str], str],
    runtime: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """A program prints the same from the shelf as with pip-installed packages, on each S3 server."""
    ran = run_from_shelf(runtime(published.version), name, published, tmp_path)
    assert ran.ok() == expected(name)
    installed = report(ran)["installed"]
    assert isinstance(installed, list)
    assert all(folder.startswith(RUNTIME) for folder in installed), installed


@pytest.mark.network
def test_second_process_without_store(
    published: Published, runtime: Callable[[str], str], tmp_path: Path
) -> None:
    """A second process with the same cache makes no request, and works with the store switched off."""
    python = runtime(published.version)
    first = run_from_shelf(python, "pandas", published, tmp_path).ok()
    off = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "CLOUDIMPORT_YANKED": "ignore"}
    second = run_from_shelf(python, "pandas", published, tmp_path, **off)
    assert second.ok() == first
    assert report(second)["requests"] == 0


def count_pandas(python: str, where: Published, home: Path, **settings: str) -> tuple[Counts, Counts]:
    """Import pandas with a cold cache; return the counts when its first line ran, and those of all."""
    env = {**where.environ, "CLOUDIMPORT_SHELF": where.url, "CLOUDIMPORT_CACHE": str(home / "cache")}
    env["CLOUDIMPORT_YANKED"] = "ignore"  # else the background may ask, and is counted
    first, last = json.loads(Runner(home, python, []).run(PANDAS, env={**env, **settings}).ok())
    return first, last


@pytest.mark.network
def test_requests_of_import_pandas(
    published: Published, runtime: Callable[[str], str], tmp_path: Path
) -> None:
    """A cold ``import pandas`` makes few requests, most of them at once, with or without a lock."""
    python, lock = runtime(published.version), str(published.lock)
    first, last = count_pandas(python, published, tmp_path / "locked", CLOUDIMPORT_LOCK=lock)
    assert first["round_trips"] == 2  # the index; what pandas needs
    assert last["requests"] <= PANDAS_REQUESTS
    listed = str(published.requirements)
    first, last = count_pandas(python, published, tmp_path / "listed", CLOUDIMPORT_REQUIREMENTS=listed)
    assert first["round_trips"] <= 3  # the pointer before
    assert last["requests"] <= PANDAS_REQUESTS + 1


@pytest.mark.network
def test_requests_with_a_boot_image(
    published: Published, runtime: Callable[[str], str], tmp_path: Path
) -> None:
    """With a boot image all that ``import pandas`` needs comes in one round trip, and nothing else does."""
    lock, program = tmp_path / "boot.lock", tmp_path / "program.py"
    lock.write_text(published.lock.read_text())
    program.write_text("import pandas\n")
    where = ("--lock", lock, "--shelf", published.url)
    traced = tmp_path / "trace.json"
    run_shelf("trace", program, *where, "-o", traced, env=published.environ).ok()
    run_shelf("boot", traced, *where, env=published.environ).ok()
    first, last = count_pandas(runtime(published.version), published, tmp_path, CLOUDIMPORT_LOCK=str(lock))
    assert (first["round_trips"], last["round_trips"]) == (1, 1)
    assert last["requests"] <= PANDAS_REQUESTS_BOOT


@pytest.mark.network
@pytest.mark.long
@pytest.mark.parametrize("server_name", ["moto", "radosgw"])
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_everything(
    version: str,
    server_name: str,
    request: pytest.FixtureRequest,
    runtime: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """Twenty packages print the same from each S3 server as with pip, on every Python at hand."""
    python = find_python(version)
    if python is None:
        pytest.skip(f"there is no CPython {version} on this machine")
    server: S3Server = request.getfixturevalue(server_name)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text((HELLO / f"requirements-{version}.txt").read_text())
    installed = install_packages(version, requirements, tmp_path / "installed")
    where = publish(server, server.make_bucket(f"all-{version.replace('.', '')}"), requirements, version)
    plain = Runner(tmp_path / "plain", python, [str(installed)])
    for name in (*SAMPLE, *REST):
        wanted = plain.run_script(HELLO / "programs.py", name, env=server.environ).ok()
        assert run_from_shelf(runtime(version), name, where, tmp_path / name).ok() == wanted, name
