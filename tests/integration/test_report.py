"""``shelf report``: what the record of a start says is what happened, and the page shows it, in a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import Runner
from tests.support.faulty import FaultyServer
from tests.support.installed import REQUESTS, publish_installed
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf, write_tree

PROGRAM = """
import json, sys
import cloudimport
cloudimport.install()
import requests
names = ("requests", "urllib3", "idna", "certifi", "charset_normalizer")
aliases = "requests.packages."
ours = [n for n in sys.modules if n.partition(".")[0] in names and not n.startswith(aliases)]
print(json.dumps({"modules": ours, "stats": cloudimport.stats()}))
"""
#: Names that would be markup, did nobody see to it.
HOSTILE = '<script>document.title="gone"</script>"&'


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], dict[str, Any], list[str], Path]:
    """A cold start over HTTP: what it says, what its record says, what was asked for, and the record."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "work").mkdir()
    shelf = MadeShelf(folder / "work")
    publish_installed(shelf, *REQUESTS)
    shelf.environment()
    write_tree(shelf.work, {"app.py": PROGRAM})
    with FaultyServer(Path(shelf.url)) as server:
        env = {
            "CLOUDIMPORT_SHELF": "s3://bucket",
            "CLOUDIMPORT_CACHE": str(folder / "cache"),
            "CLOUDIMPORT_REPORT": str(folder / "trace.json"),
            "AWS_ENDPOINT_URL_S3": server.endpoint,
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1",
        }
        ran = Runner(folder / "home").run_script(shelf.work / "app.py", env=env, cwd=shelf.work)
        said = json.loads(ran.ok())
        paths = [request.target for request in server.requests]
    return said, json.loads((folder / "trace.json").read_text()), paths, folder / "trace.json"


def test_record(started: Any) -> None:
    """Every request, module and byte is in the record, once, and in the order of time."""
    said, trace, paths, _ = started
    run = trace["run"]
    assert sorted(f"/bucket/{row[0]}" for row in run["requests"]) == sorted(paths)
    assert len(run["requests"]) == trace["stats"]["requests"]
    assert sum(row[2] for row in run["requests"]) == trace["stats"]["bytes_fetched"]
    imported = [row[0] for row in run["imports"] if row[1]]
    assert set(said["modules"]) <= set(imported)
    assert all(0 <= began <= ended <= run["ended"] for _, _, began, ended, _ in run["imports"])
    assert {row[1] for row in run["imports"]} == {"", *REQUESTS}
    blocks = sorted(f"{name} {number}" for name, _, number in trace["blocks"])
    assert sorted(row[0] for row in run["blocks"]) == blocks
    for block, request, ready in run["blocks"]:
        key, _, _, began, _ = run["requests"][request]
        assert key.startswith(f"packages/{block.split()[0]}/")
        assert began <= ready
    waited = sum(ended - began for _, began, ended, _ in run["waits"])
    assert waited / 1e6 == pytest.approx(trace["stats"]["wait_seconds"], rel=0.2, abs=0.01)
    assert {name for name, *_ in run["packages"]} == set(REQUESTS)
    assert sum(row[3] for row in run["packages"]) == sum(
        size for key, _, size, _, _ in run["requests"] if key.startswith("packages/")
    )


def test_page(started: Any, tmp_path: Path) -> None:
    """The page has a bar for each request and wait, and the figures; a browser shows it, and runs nothing."""
    _, trace, _, file = started
    trace = json.loads(file.read_text())
    trace["run"]["program"] = trace["run"]["imports"][0][0] = trace["run"]["packages"][0][1] = HOSTILE
    (tmp_path / "trace.json").write_text(json.dumps(trace))
    said = run_shelf("report", "trace.json", "-o", "page.html", cwd=tmp_path).ok()
    assert f"{len(trace['run']['requests'])} requests" in said
    text = (tmp_path / "page.html").read_text()
    assert text.count('data-kind="request"') == len(trace["run"]["requests"])
    assert text.count('data-kind="wait"') == len(trace["run"]["waits"])
    assert text.count('class="link"') == len(trace["run"]["waits"])
    assert "<script" not in text
    assert "://" not in text.replace("s3://", "")
    seen = _in_browser(tmp_path / "page.html")
    assert "<title>Cold start of &lt;script&gt;" in seen
    assert seen.count("<rect") == text.count("<rect")
    assert seen.count("<script") == 0


def _in_browser(page: Path) -> str:
    """Return the document as a browser has it, having looked at it: what it draws is no empty page."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium here: make test installs it where root allows")
    picture = page.with_suffix(".png")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}"]
    options += ["--hide-scrollbars", "--window-size=1280,1000"]

    def run(*more: str) -> str:
        done = subprocess.run(
            [program, *options, *more, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        return done.stdout

    run(f"--screenshot={picture}")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size > 40_000  # an empty page of this size has some 5 kB
    return run("--dump-dom")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ('{"format": 1, "kind": "trace", "index": "", "target": "", "blocks": []}', "it has no times"),
        ('{"format": 1, "kind": "trace", "target": "", "run": {"program": 3}}', "is not the record of a run"),
    ],
)
def test_what_is_no_record_is_said(tmp_path: Path, content: str | None, words: str) -> None:
    """What is no record of a run is refused in one line, and no page is written."""
    if content is not None:
        (tmp_path / "t.json").write_text(content)
    ran = run_shelf("report", "t.json", cwd=tmp_path)
    assert ran.returncode == 1
    assert len(ran.stderr.splitlines()) == 1
    assert words in ran.stderr
    assert not (tmp_path / "report.html").exists()


def test_loaders_are_as_before(tmp_path: Path) -> None:
    """uninstall() ends the watching of imports."""
    shelf = MadeShelf(tmp_path)
    shelf.add("one", "1", {"one/__init__.py": "x = 1\n"})
    shelf.environment()
    code = """
    from importlib.machinery import ExtensionFileLoader, SourceFileLoader
    import cloudimport, sys
    kinds = (SourceFileLoader, ExtensionFileLoader)
    before = [dict(vars(kind)) for kind in kinds]
    cloudimport.install(lock=sys.argv[1], cache=sys.argv[2])
    import one
    assert [dict(vars(kind)) for kind in kinds] != before
    cloudimport.uninstall()
    assert [dict(vars(kind)) for kind in kinds] == before
    """
    env = {"CLOUDIMPORT_TRACE": str(tmp_path / "t.json")}
    Runner(tmp_path / "home").run(code, str(shelf.lock), str(tmp_path / "cache"), env=env).ok()
    [row] = [row for row in json.loads((tmp_path / "t.json").read_text())["run"]["imports"] if row[1]]
    assert row[:2] == ["one", "one"]
