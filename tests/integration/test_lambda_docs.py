"""``docs/lambda.md``: what it says can be run, runs; from nothing to a template that can be deployed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from cloudimport.settings import resolve
from tests.support.children import REPOSITORY
from tests.support.runtimes import find_python
from tests.support.s3servers import S3Server
from tests.support.shelfcommand import publisher_environment
from tests.support.templates import read_template

PAGE = (REPOSITORY / "docs" / "lambda.md").read_text(encoding="utf-8")
#: Seconds for all of it: two packages are published for two targets.
_TIMEOUT = 400


def blocks(mark: str, language: str = "sh") -> list[str]:
    """Return the blocks of the page that are marked so ("": those that are not marked)."""
    before = f"<!-- {re.escape(mark)} -->\n" if mark else r"(?<!-->\n)"
    return re.findall(rf"{before}```{language}\n(.*?)```\n", PAGE, re.DOTALL)


def test_the_page_has_what_is_run() -> None:
    """There are blocks that are run and others, and each is one of them."""
    kinds = [blocks(mark) for mark in ("run", "")]
    assert all(kinds)
    assert sum(map(len, kinds)) == PAGE.count("```sh\n")
    assert len(kinds[0]) >= 7


@pytest.mark.network
@pytest.mark.long
@pytest.mark.skipif(find_python("3.12") is None, reason="there is no CPython 3.12 on this machine")
def test_the_blocks_run(moto: S3Server, tmp_path: Path) -> None:
    """In an empty folder, one after the other, as they stand; but for the name of the bucket."""
    bucket = f"shelf-{os.urandom(6).hex()}"
    script = "set -eu\n" + "".join(
        f"echo '== {number}'\n{block}" for number, block in enumerate(blocks("run"))
    ).replace("my-shelf-4711", bucket)
    (tmp_path / "work").mkdir()
    (tmp_path / "home").mkdir()
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    extra = {
        **moto.environ,
        "CLONE": str(REPOSITORY),
        "PATH": path,
        "XDG_CACHE_HOME": str(tmp_path / "home"),
        "XDG_DATA_HOME": str(tmp_path / "home"),
        "SAM_CLI_TELEMETRY": "0",
        "SAM_CLI_POLL_DELAY": "0.3",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path / "work",
        env=publisher_environment(extra),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "{'text': '1 hour, 1 minute and 6 seconds'}" in done.stdout
    assert "yanked" in done.stdout
    check_what_was_made(tmp_path / "work", moto, bucket)


def check_what_was_made(work: Path, moto: S3Server, bucket: str) -> None:
    """The last template lets the last lockfile be read; what ``sam build`` packs is the function."""
    assert sorted(os.listdir(work / ".aws-sam/build/Function")) == ["app.py", "cloudimport.lock"]
    lock = json.loads((work / "function/cloudimport.lock").read_text())
    names = [line.partition("==")[0] for line in lock["requirements"]]
    assert names == ["humanize", "six"]
    assert "cp312-manylinux_2_34_aarch64" in lock["targets"]
    reader = read_template((work / "template.yaml").read_text())["Resources"]["ReadShelf1"]["Properties"]
    (statement,) = reader["PolicyDocument"]["Statement"]
    readable = [one["Fn::Sub"].partition("${ShelfPrefix}")[2] for one in statement["Resource"]]
    assert readable[: len(names)] == [f"packages/{name}/*" for name in names]
    with closing(moto.client()) as client:
        there = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert {key.removeprefix("shelf/") for key in there} >= {key for key in readable if "*" not in key}


def test_the_deployment_of_kubernetes() -> None:
    """The cache lies in a volume that the user may write to, below a root that nobody may write to."""
    (text,) = blocks("", "yaml")
    spec = yaml.safe_load(text)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    environ = {one["name"]: one["value"] for one in container["env"]}
    settings = resolve(lock="cloudimport.lock", environ=environ)
    (mount,) = container["volumeMounts"]
    assert Path(settings.cache).parent == Path(mount["mountPath"])
    (volume,) = spec["volumes"]
    assert volume["name"] == mount["name"]
    assert "emptyDir" in volume
