"""``shelf publish`` killed with SIGKILL at moments spread over its whole run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloudimport.format import keys
from cloudimport.format.records import EnvironmentPointer, requirements_digest, sha256
from cloudimport.ids import Pin, running_targets
from shelf_tools.builds import verify_build
from shelf_tools.environments import verify_environments
from tests.support.localwheels import PINS, files_of, make_wheels, write_requirements
from tests.support.shelfcommand import publisher_environment, run_shelf
from tests.support.stacks import opened

TARGET = str(running_targets()[0])
#: Seconds within which everything that a killed publisher had started is gone.
_GONE = 10.0


class Publisher:
    """Publishes the same local wheels to one shelf; everything of it lies below one folder."""

    def __init__(self, folder: Path, sandbox: str) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        self.temporary.chmod(0o755)
        self.environ = {**make_wheels(folder / "wheels"), "TMPDIR": str(self.temporary), "HOME": str(folder)}
        self.requirements = write_requirements(folder / "requirements.txt")
        self.shelf = folder / "shelf"
        self.sandbox = sandbox

    def start(self) -> subprocess.Popen[bytes]:
        """Start a publisher in a process group of its own."""
        code = "import sys; from shelf_tools.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", code, "publish", "-r", str(self.requirements)]
        command += ["--shelf", str(self.shelf), "--sandbox", self.sandbox, "--jobs", "1"]
        return subprocess.Popen(
            command,
            env=publisher_environment(self.environ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def finish(self) -> float:
        """Publish to the end; return the seconds that it took."""
        began = time.monotonic()
        process = self.start()
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
        return time.monotonic() - began

    def kill_at(self, seconds: float, *, group: bool) -> bool:
        """Publish, and kill it after a while; return whether it was still at work."""
        process = self.start()
        try:
            process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            if group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            return True
        finally:
            process.wait()
            assert process.stderr is not None
            process.stderr.close()

    def kill_after(self, objects: int) -> None:
        """Publish, and kill it as soon as the shelf has so many objects."""
        process = self.start()
        try:
            while process.poll() is None and self._objects() < objects:
                time.sleep(0.0005)
            process.kill()
        finally:
            process.wait()
            assert process.stderr is not None
            process.stderr.close()

    def _objects(self) -> int:
        return sum(not name.startswith(".") for _, _, names in os.walk(self.shelf) for name in names)

    def published(self) -> list[str]:
        """Return the pins that readers see; each is whole, and so is every environment."""
        if not self.shelf.is_dir():
            return []
        seen = [pin for pin in PINS if self._pointer(pin).exists()]
        if (self.shelf / keys.SHELF).exists():
            problems = f"{len(seen)} build{'s' * (len(seen) != 1)} checked, 0 problems"
            assert run_shelf("verify", "--shelf", self.shelf).ok() == problems
        assert seen == [] or (self.shelf / keys.SHELF).exists()
        return seen

    def _pointer(self, pin: str) -> Path:
        parsed = Pin.parse(pin)
        return self.shelf / keys.build_pointer(parsed.name, parsed.version, TARGET)

    def check_all(self) -> list[str]:
        """Everything is published and reads as it was put in; return the contents' digests."""
        assert self.published() == list(PINS)
        lines = [str(Pin.parse(pin)) for pin in PINS]
        key = keys.environment_pointer(requirements_digest(lines))
        pointer = EnvironmentPointer.decode((self.shelf / key).read_bytes(), key)
        with opened(str(self.shelf), pointer.targets[TARGET], self.folder / "cache") as stack:
            for pin in PINS:
                for path, data in files_of(pin.partition("==")[0]).items():
                    assert stack.read(path) == (data if isinstance(data, bytes) else data.encode())
            return [build.content for build in stack.index.builds]

    def leaks(self) -> list[str]:
        """Return processes and mounts that mention the publisher's folder."""
        found = [
            line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.folder) in line
        ]
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if str(self.temporary) in command and folder.name != str(os.getpid()):
                found.append(command.replace("\0", " ")[:200])
        return found


def moment_of(number: int, count: int) -> float:
    """Return when to kill, as a share of the run: every other time in its last third, where it writes."""
    share = (number + 0.5) / count
    return 0.97 * share if number % 2 == 0 else 0.65 + 0.32 * share


def rounds(tmp_path: Path, count: int, sandbox: str, contents: set[tuple[str, ...]]) -> None:
    """Kill ``count`` publishers at moments spread over a whole run, each on a shelf of its own."""
    Publisher(tmp_path / "warm", sandbox).finish()  # the first one of all takes longer
    whole = Publisher(tmp_path / "whole", sandbox)
    lasts = whole.finish()
    contents.add(tuple(whole.check_all()))
    killed, partly = 0, 0
    for number in range(count):
        publisher = Publisher(tmp_path / str(number), sandbox)
        moment = lasts * moment_of(number, count)
        killed += publisher.kill_at(moment, group=number % 4 < 2)
        until = time.monotonic() + _GONE
        while (left := publisher.leaks()) and time.monotonic() < until:
            time.sleep(0.05)
        assert left == [], f"killed after {moment:.2f} s"
        partly += 0 < len(publisher.published()) < len(PINS)
        publisher.finish()
        contents.add(tuple(publisher.check_all()))
    sys.stdout.write(
        f"{sandbox}: {killed} of {count} killed at work in {lasts:.1f} s, {partly} of them between two pins\n"
    )
    assert killed, "all of them were done before"
    assert len(contents) == 1, "the same wheels gave different contents"


@pytest.mark.parametrize(("sandbox", "count"), [("none", 5), ("bubblewrap", 3)])
def test_killed_at_any_moment(tmp_path: Path, sandbox: str, count: int) -> None:
    """After a kill readers see all of a pin or nothing, nothing runs on, and a second run completes."""
    rounds(tmp_path, count, sandbox, set())


@pytest.mark.parametrize("objects", [4, 8, 13, 18])
def test_killed_between_two_writes(tmp_path: Path, objects: int) -> None:
    """Killed as soon as so many of its 19 objects are there, it leaves whole pins; a second run completes."""
    publisher = Publisher(tmp_path, "none")
    publisher.kill_after(objects)
    seen = publisher.published()
    sys.stdout.write(f"killed after {objects} objects: {len(seen)} of {len(PINS)} pins visible\n")
    publisher.finish()
    publisher.check_all()


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_fifty_times(tmp_path: Path) -> None:
    """Fifty moments, some of them in the sandbox: the same promises, and one content throughout."""
    contents: set[tuple[str, ...]] = set()
    rounds(tmp_path / "none", 35, "none", contents)
    rounds(tmp_path / "bubblewrap", 15, "bubblewrap", contents)


def test_killed_while_it_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher that ends before any one of its writes leaves a shelf that readers find whole."""
    from shelf_tools.stores.folder import FolderStore
    from tests.support.shelves import MadeShelf

    class Killed(BaseException):
        """The end, without any cleaning up that a publisher would do."""

    original, left = FolderStore._temporary, [0]

    def dying(self: FolderStore, key: str, data: bytes | Path):  # type: ignore[no-untyped-def]
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return original(self, key, data)

    monkeypatch.setattr(FolderStore, "_temporary", dying)
    writes, done = 0, False
    while not done:
        folder = tmp_path / str(writes)
        folder.mkdir()
        left[0] = writes
        try:
            _publish(MadeShelf(folder))
            done = True
        except Killed:
            pass
        left[0] = 1000
        shelf = MadeShelf(folder)
        pin = Pin.parse("alpha==1.0")
        if (folder / "shelf" / keys.build_pointer(pin.name, pin.version, TARGET)).exists():
            assert verify_build(shelf.source, pin, TARGET) == []
        assert verify_environments(shelf.store, shelf.source) == []
        _publish(shelf)
        with opened(shelf.url, shelf.environment(), folder / "cache") as stack:
            assert sha256(stack.read("alpha/two.py")) == sha256(
                str(files_of("alpha")["alpha/two.py"]).encode()
            )
        writes += 1
    assert writes >= 9  # status, shelf, pack, layout, content, provenance, pointer, index, its pointer


def _publish(shelf) -> None:  # type: ignore[no-untyped-def]
    shelf.add("alpha", "1.0", files_of("alpha"))
    shelf.environment()
