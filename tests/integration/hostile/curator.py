"""A curator's machine for one row: a home with secrets, listeners, a shelf with an innocent package on it."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

from shelf_tools import cli
from tests.integration.hostile.machine import adopting, list_after, list_machine
from tests.integration.hostile.row import CONTAINED, Place, Row
from tests.support.children import REPOSITORY, Ran
from tests.support.shelfcommand import publisher_environment
from tests.support.wheels import build_wheel

#: Whoever has read one of the curator's secrets has this text.
SECRET = "hush-7f3a91"
#: The command, with another installer for a row that has one.
COMMAND = """\
import sys
from pathlib import Path
from shelf_tools import cli, scripts
inside = sys.argv.pop(1)
if inside:
    scripts._HERE = Path(inside)
sys.exit(cli.main())
"""
#: Seconds; no row may keep a publisher longer.
_TIMEOUT = 550


class Curator:
    """Publishes a row's packages and finds out what came of it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.mark = f"mark-{os.getpid()}-{name}"
        self.home, self.project, self.temporary = folder / "home", folder / "project", folder / "tmp"
        self.wheels, self.shelf, self._inside = folder / "wheels", folder / "shelf", folder / "inside"
        for made in (self.home, self.project, self.temporary, self.wheels):
            made.mkdir(mode=0o700)
        for secret in (".aws/credentials", ".netrc", ".pypirc", ".ssh/id_ed25519", ".config/pip/pip.conf"):
            (self.home / secret).parent.mkdir(exist_ok=True, parents=True)
            text = f"[global]\n# {SECRET}\n" if secret.endswith(".conf") else f"{SECRET}\n"
            (self.home / secret).write_text(text)
        self.reached: list[str] = []

    def environment(self) -> dict[str, str]:
        """Return the publisher's environment, secrets and all."""
        return publisher_environment(
            {
                "PATH": "/usr/local/bin:/usr/bin:/bin",  # pip asks a rustc for its version, and that makes files
                "HOME": str(self.home),
                "TMPDIR": str(self.temporary),
                "PIP_NO_INDEX": "1",
                "PIP_NO_CACHE_DIR": "1",
                "PIP_FIND_LINKS": str(self.wheels),
                "UV_OFFLINE": "1",
                "UV_NO_CACHE": "1",
                "AWS_ACCESS_KEY_ID": "AKIA" + SECRET,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "GITHUB_TOKEN": SECRET,
            }
        )

    @contextmanager
    def listening(self) -> Iterator[Mapping[str, str]]:
        """Yield what hostile code is told; listeners on the machine note who reaches them."""
        with (
            socket.socket() as tcp,
            socket.socket(socket.AF_UNIX) as path,
            socket.socket(socket.AF_UNIX) as abstract,
        ):
            tcp.bind(("127.0.0.1", 0))
            path.bind(str(self.home / "agent"))
            abstract.bind(f"\0{self.mark}")
            for listener in (tcp, path, abstract):
                listener.listen()
                threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            yield {
                "PORT": str(tcp.getsockname()[1]),
                "AGENT": str(self.home / "agent"),
                "MARK": self.mark,
                "HOME": str(self.home),
                "PROJECT": str(self.project),
                "SHELF": str(self.shelf),
                "PUBLISHER": str(os.getpid()),
            }
            for listener in (tcp, path, abstract):
                listener.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        try:
            listener.accept()[0].close()
        except OSError:
            return
        self.reached.append(str(listener))

    def publish(self, pins: list[str], row: Row) -> Ran:
        """Publish pins with the row's limits and installer."""
        (self.project / "requirements.txt").write_text("".join(f"{pin}\n" for pin in pins))
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                COMMAND,
                str(self._inside) if row.installer else "",
                *("publish", "-r", "requirements.txt", "--shelf", str(self.shelf), "--jobs", "2"),
                # Other processes would have the installer that is there.
                *(("--executor", "threads") if row.installer else ()),
                *row.flags(),
            ],
            env=self.environment(),
            cwd=self.project,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    def take_over(self, script: str) -> None:
        """Have ``script`` run in the sandbox instead of the installer."""
        shutil.copytree(REPOSITORY / "shelf_tools" / "inside", self._inside)
        (self._inside / "install_wheel.py").write_text(script)

    def objects(self) -> dict[str, str]:
        """Return the digest of every object on the shelf by key."""
        return {
            path.relative_to(self.shelf).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.shelf.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        }


def make_innocent(folder: Path) -> Path:
    """Publish the innocent package to a shelf below ``folder`` and return that."""
    curator = Curator(folder, "innocent")
    build_wheel(curator.wheels, "innocent", "1.0", INNOCENT)
    row = Row("innocent", "", CONTAINED, (), lambda place, name: [])
    curator.publish(["innocent==1.0"], row).ok()
    return folder


INNOCENT = {"innocent/__init__.py": "from innocent import deep\n", "innocent/deep.py": "x = 1\n"}


def attempt(row: Row, folder: Path, innocent: Path, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Publish a row; assert all that must be so after any row, whatever it is."""
    curator = Curator(folder, row.name)
    shutil.copytree(innocent / "shelf", curator.shelf)
    shutil.copytree(innocent / "wheels", curator.wheels, dirs_exist_ok=True)
    with adopting(), curator.listening() as words:
        place = Place(curator.wheels, words)
        if row.installer:
            curator.take_over(place.code(row.installer))
        pins = row.make(place, row.name)
        (curator.project / "requirements.txt").write_text("")
        folders = (curator.home, curator.project, curator.temporary, curator.wheels)
        before, shelf = list_machine(folders, curator.mark), curator.objects()
        ran = curator.publish(pins, row)
        (curator.project / "cloudimport.lock").unlink(missing_ok=True)
        (curator.project / "requirements.txt").write_text("")
        after = list_after(before, folders, curator.mark)
    _check_lines(row, ran)
    listed = f"file {curator.project / 'requirements.txt'} "  # written by this test
    changed = [line for line in before.differences(after) if not line.startswith(listed)]
    assert changed == [], changed
    assert curator.reached == [], curator.reached
    _check_shelf(row, curator, shelf, pins)
    capsys.readouterr()
    assert cli.main(["verify", "--shelf", str(curator.shelf)]) == 0
    assert capsys.readouterr().out.strip().endswith("checked, 0 problems")
    return ran


def _check_lines(row: Row, ran: Ran) -> None:
    """What the curator sees is what the row says, in lines that steer no terminal and hold no secret."""
    assert row.missing(ran.stderr) == [], ran.stderr[-4000:]
    assert (ran.returncode == 0) is (row.outcome == CONTAINED), ran.stderr[-4000:]
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr) < 20_000
    said = ran.stdout + ran.stderr
    assert all(c.isprintable() or c == "\n" for c in said), [c for c in said if not c.isprintable()][:5]
    assert SECRET not in said


def _check_shelf(row: Row, curator: Curator, before: Mapping[str, str], pins: list[str]) -> None:
    """What was there is as it was; what is new is the row's own, or nothing; no secret is in it."""
    after = curator.objects()
    assert {key: after.get(key) for key in before} == before
    new = after.keys() - before.keys()
    if row.outcome != CONTAINED:
        assert new == set()
        return
    own = {f"packages/{pin.partition('=')[0]}/" for pin in pins} | {"envs/"}
    assert [key for key in new if not key.startswith(tuple(own))] == []
    decoder = zstandard.ZstdDecompressor()
    for key in new:
        data = (curator.shelf / key).read_bytes()
        if data[:4] == zstandard.MAGIC_NUMBER.to_bytes(4, "little"):
            data = decoder.decompressobj().decompress(data)
        assert SECRET.encode() not in data, key
