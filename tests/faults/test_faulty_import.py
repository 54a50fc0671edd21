"""The k-th GET of an import of requests fails, for every k and every fault, over the real S3 client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudimport.format.records import sha256
from tests.support.children import REPOSITORY, Runner
from tests.support.installed import REQUESTS, files_of, publish_installed
from tests.support.shelves import MadeShelf

#: Seconds that one fetch may take with all its retries; an import may need several.
DEADLINE = 0.5
ONCE = ("reset", "close", "stall", 403, 404, 500, 503, "short", "wrong")
#: Faults that one retry mends: they must not be seen at all when they come once.
MENDED = ("reset", "close", 500, 503, "short", "wrong")

#: Path to digest of every file as it was published.
ORIGINALS = {
    path: sha256(data if isinstance(data, bytes) else data.encode())
    for name in REQUESTS
    for path, data in files_of(name).items()
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> MadeShelf:
    """A shelf with requests and what it needs."""
    made = MadeShelf(tmp_path_factory.mktemp("shelf"))
    publish_installed(made, *REQUESTS)
    made.environment()
    return made


def run(shelf: MadeShelf, tmp_path: Path, fault: str | int, times: int, step: int) -> dict[str, Any]:
    """Run the child over every k; return what it found."""
    # Third parties of the runtime, and nothing of requests: what is imported comes from the shelf.
    import backports.zstd

    codec = tmp_path / "path" / "backports"
    codec.mkdir(parents=True)
    (codec / "zstd").symlink_to(Path(backports.zstd.__file__).parent)
    (tmp_path / "requirements.txt").write_text(shelf.requirements.read_text())
    runner = Runner(tmp_path / "home", path=[str(REPOSITORY), str(codec.parent)], python=_bare_python())
    env = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "CLOUDIMPORT_DEADLINE": str(DEADLINE),
    }
    script = Path(__file__).with_name("faulty_import.py")
    arguments = [shelf.url, str(fault), str(times), str(step), str(tmp_path)]
    ran = runner.run_script(script, *arguments, env=env)
    assert "ResourceWarning" not in ran.stderr, ran.stderr  # of a connection that an error left open
    found: dict[str, Any] = json.loads(ran.ok())
    return found


def _bare_python() -> str:
    """Return the interpreter without the site-packages of the tests."""
    import sys

    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")


def check(found: dict[str, Any], fault: str | int, times: int) -> None:
    """Every k ended well or in the right kind of error, in time, with the right bytes in the end."""
    rows = found["rows"]
    assert found["methods"] == ["GET"]
    assert len(rows) > 3
    for row in rows:
        assert len(row[7]) > 20
        assert row[7].items() <= ORIGINALS.items(), f"{fault} at request {row[0]}: wrong bytes"
    for k, stage, names, key, package, text, seconds, _, _ in rows:
        where = f"{fault} at request {k} ({stage}): {names[:1]} {text}"
        assert seconds < 4 * DEADLINE + 3, where
        if names:
            assert "CloudImportError" in names, where
            assert "ModuleNotFoundError" not in names, where
            assert "\n" not in text, where
        if names and stage == "import":
            assert "ImportError" in names, where
            assert key.startswith("packages/"), where
            assert package.partition("==")[0] in REQUESTS, where
        if (
            times == 1 and fault in MENDED and not (fault == "wrong" and k == 1)
        ):  # nothing says what a pointer is
            assert not names, where


@pytest.mark.parametrize("fault", ONCE)
def test_one_request_fails(shelf: MadeShelf, tmp_path: Path, fault: str | int) -> None:
    """Whichever request fails, the import ends well or in a typed error, and the next one is well."""
    check(run(shelf, tmp_path, fault, 1, 1), fault, 1)


@pytest.mark.parametrize("fault", ["reset", "stall", 403, 404, 503, "short", "wrong"])
def test_all_requests_fail_from_one_on(shelf: MadeShelf, tmp_path: Path, fault: str | int) -> None:
    """An outage that begins in the middle of an import ends it in a typed error within the deadline."""
    found = run(shelf, tmp_path, fault, 1000, 4)
    check(found, fault, 1000)
    assert all(row[2] for row in found["rows"][1:])
