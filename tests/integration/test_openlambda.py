"""OpenLambda: its examples by ``shelf serve``, and its worker's package folder by ``shelf export``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.installed import requests_shelf
from tests.support.runtimes import find_python
from tests.support.serving import Served, serving
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf, write_tree

PAGE = "<html>" + "a page of this machine, longer than what is answered " * 20 + "</html>"
#: In the shape of the example in OpenLambda's documentation on packages.
SCRAPER = """
import requests

def f(event):
    answer = requests.get(event, timeout=30)
    answer.raise_for_status()
    return answer.text[:500] + "... (from requests version %s)" % requests.__version__
"""
PATH = "import requests, sys\n\ndef f(event):\n    return sys.path\n"
#: What pip-compile makes of ``requests==2.20``, with what was current then and runs on CPython 3.10.
PINS = "certifi==2018.11.29\nchardet==3.0.4\nidna==2.7\nrequests==2.20.0\nurllib3==1.24.3\n"


@pytest.fixture
def page() -> Iterator[str]:
    """The URL of a page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PAGE.encode())

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture
def shelf(tmp_path: Path) -> MadeShelf:
    """A shelf with requests."""
    return requests_shelf(tmp_path)


def curl(served: Served, name: str, event: object) -> str:
    """Ask as OpenLambda's documentation does."""
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "-X", "POST", f"{served.url}/run/{name}"]
    return subprocess.run(
        [*command, "-d", json.dumps(event)], capture_output=True, text=True, timeout=120, check=True
    ).stdout


def test_the_scraper(shelf: MadeShelf, page: str, tmp_path: Path) -> None:
    """The handler that fetches a page by requests runs as it stands, by its list or its lockfile."""
    functions = write_tree(tmp_path / "f", {"scraper/f.py": SCRAPER, "path/f.py": PATH})
    for name in ("scraper", "path"):
        (functions / name / "requirements.txt").write_bytes(shelf.requirements.read_bytes())
    env = {"CLOUDIMPORT_SHELF": shelf.url}
    with serving(functions, tmp_path / "cache", env=env) as served:
        answer = json.loads(curl(served, "scraper", page))
        assert answer.startswith(PAGE[:500] + "... (from requests version ")
        path = json.loads(curl(served, "path", None))
        assert path[0] == "/var/task"
        assert any(entry.startswith("/tmp/cloudimport/v1/trees/") for entry in path)


@pytest.mark.long
@pytest.mark.network
def test_the_scraper_as_it_was(page: str, tmp_path: Path) -> None:
    """With the very version of OpenLambda's documentation, on the Python that it has."""
    python = find_python("3.10")
    if python is None:
        pytest.skip("there is no CPython 3.10 on this machine")
    functions = write_tree(tmp_path / "f", {"scraper/f.py": SCRAPER, "path/f.py": PATH})
    requirements = functions / "scraper" / "requirements.txt"
    requirements.write_text(PINS)
    shelf, target = tmp_path / "shelf", f"cp310-manylinux_2_28_{os.uname().machine}"
    command = ("publish", "-r", requirements, "--shelf", shelf, "--target", target, "--python", python)
    run_shelf(*command).ok()
    (functions / "path" / "requirements.txt").write_text(PINS)
    with serving(functions, tmp_path / "cache", "--shelf", str(shelf), "--python", python) as served:
        answer = json.loads(curl(served, "scraper", page))
        assert answer == PAGE[:500] + "... (from requests version 2.20.0)"
        path = json.loads(curl(served, "path", None))
        assert "/var/lang/lib/python3.10" in path
    run_shelf(
        *("export", "--layout", "openlambda", tmp_path / "packages", "-r", requirements, "--shelf", shelf),
        *("--target", target, "--cache", tmp_path / "export-cache"),
    ).ok()
    # The list's spelling of a pin is what its worker looks for.
    assert all((tmp_path / "packages" / pin / "files").is_dir() for pin in PINS.split())


def export(shelf: MadeShelf, folder: Path) -> str:
    """Run ``shelf export --layout openlambda``."""
    cache = str(shelf.work.parent / "cache")
    command = ("export", "--layout", "openlambda", str(folder), "--cache", cache)
    return run_shelf(*command, "--lock", shelf.lock).ok()


def test_a_worker_s_folder(shelf: MadeShelf, tmp_path: Path) -> None:
    """Each package alone, and together what an import needs, on a Python that has nothing of them."""
    folder = tmp_path / "packages"
    export(shelf, folder)
    pins = [str(pin) for pin in shelf.builds]
    for pin in pins:
        names = os.listdir(folder / pin / "files")
        (info,) = (name for name in names if name.endswith(".dist-info"))
        assert (folder / pin / "files" / info / "METADATA").is_file()
    code = "import sys; sys.path[:0] = sys.argv[1:]; import requests, certifi"
    code += "; print(requests.__file__, certifi.where())"
    paths = [str(folder / pin / "files") for pin in pins]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *paths], capture_output=True, text=True, check=True
    )
    assert all(str(folder) in part for part in done.stdout.split())
    links = [entry for entry in os.scandir(folder) if entry.is_symlink()]
    assert all(Path(link.path).resolve().parent == folder.resolve() for link in links)


def test_an_export_goes_on(shelf: MadeShelf, tmp_path: Path) -> None:
    """What is there stays, what is missing comes, and what the worker has installed itself is left alone."""
    folder = tmp_path / "packages"
    own = write_tree(folder, {"idna==0/files/x": "", "other==1/files/y.py": ""})
    first, second = sorted(str(pin) for pin in shelf.builds)[:2]
    write_tree(folder / second / "files", {"of_the_worker.py": ""})
    export(shelf, folder)
    assert os.listdir(folder / second / "files") == ["of_the_worker.py"]
    before = {path: path.stat().st_ino for path in (folder / first).rglob("*") if path.is_file()}
    third = sorted(str(pin) for pin in shelf.builds)[2]
    (folder / third / ".shelf-export.json").unlink()
    for path in sorted((folder / third).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / third).rmdir()
    export(shelf, folder)
    assert {path: path.stat().st_ino for path in (folder / first).rglob("*") if path.is_file()} == before
    assert (folder / third / "files").is_dir()
    assert (own / "other==1" / "files" / "y.py").is_file()
    left = [name for name in os.listdir(folder) if name.startswith(".")]
    assert left == []
