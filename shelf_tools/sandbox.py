"""Running what a package brings: a bubblewrap sandbox with limits, or, when asked for by name, none.

Inside, ``/usr`` of the machine and the interpreter are read-only, ``/out`` and ``/tmp`` are bounded
and vanish, and nothing of the curator's environment, home or network is there. What a run has to
hand over it writes to standard output; the caller reads that as hostile input.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from cloudimport.errors import ConfigurationError
from shelf_tools import process, seccomp, slots
from shelf_tools.interpreters import Interpreter
from shelf_tools.limits import GIB, INSTALL_LIMITS, KIB, MIB, TRACE_LIMITS, Limits
from shelf_tools.process import Finished
from shelf_tools.warden import Warden

__all__ = ["GIB", "INSTALL_LIMITS", "KIB", "MIB", "OUT", "SCRATCH", "TRACE_LIMITS", "Bubblewrap", "Limits"]
__all__ += ["Sandbox", "Unconfined", "open_sandbox"]

#: Folders that every sandbox has, both writable and bounded.
OUT = PurePosixPath("/out")
SCRATCH = PurePosixPath("/tmp")
_PYTHON = PurePosixPath("/py")
_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Uid and gid that code inside sees; outside it is a slot's or the curator's own.
_INSIDE_ID = "1000"
#: Bytes of /dev/shm: named semaphores of multiprocessing, which some packages make at import.
_SHARED_BYTES = 16 * MIB
_TOOLS = ("bwrap", "setpriv", "prlimit", "choom", "env", "setsid")
_ROOT_TOOLS = ("unshare", "mount", "sh")
#: The first program inside leaves the process group, so that code inside has no way to stop what watches
#: over the run. bwrap's own processes stay in it: who kills the group kills all (see ``process``).
_OWN_SESSION = ("setsid", "--wait")


#: The probe of ``open_sandbox``.
_PROBE_LIMITS = Limits(GIB, GIB, 8, 10, 20, MIB, 64, MIB, 10, MIB)


class Sandbox(Protocol):
    """Where hostile code runs. Implementations may be used by several threads at once."""

    #: The name that ``open_sandbox`` knows it by; it stands in provenance records.
    name: str

    def resolve(self, inside: PurePosixPath, read_only: Mapping[PurePosixPath, Path]) -> PurePosixPath:
        """Return the path that code of a run with these mounts must use for ``inside``."""
        ...

    def run(
        self,
        argv: Sequence[str | PurePosixPath],
        *,
        limits: Limits,
        read_only: Mapping[PurePosixPath, Path],
        interpreter: Interpreter | None = None,
        stdin: bytes | BinaryIO | None = None,
        stdout_to: BinaryIO | None = None,
    ) -> Finished:
        """Run ``argv`` once and return what it left; nothing of it runs on after that.

        Elements that are paths are paths inside and are translated. With ``interpreter``, its
        executable is put in front. ``read_only`` maps folders (and files) inside to those outside.
        ``stdin`` is no place for a file of the curator's: code that runs as the curator's own uid can
        open it anew, for writing, by way of /proc/self/fd. Raises
        ProcessTimeout at ``limits.wall_seconds`` and ProcessError when it cannot be started; an
        exit status is not an error.
        """
        ...


def open_sandbox(name: str = "bubblewrap") -> Sandbox:
    """Return the sandbox called ``name`` (``bubblewrap`` or ``none``), tried out once.

    Raises ConfigurationError, one line with the command that helps, if it cannot work here.
    """
    if name == "none":
        _require(("prlimit", "choom"))
        return Unconfined()
    if name != "bubblewrap":
        raise ConfigurationError(f"{name!r} is not a sandbox: use bubblewrap or none")
    if not sys.platform.startswith("linux"):
        raise ConfigurationError("the bubblewrap sandbox needs Linux; --sandbox none runs without protection")
    root = os.geteuid() == 0
    _require(_TOOLS + _ROOT_TOOLS if root else _TOOLS)
    sandbox = Bubblewrap(seccomp.program(), root)
    _try_out(sandbox)
    return sandbox


def _require(tools: Sequence[str]) -> None:
    """Raise ConfigurationError, with the command that helps, if a program is missing."""
    missing = [tool for tool in tools if not shutil.which(tool, path=_PATH)]
    if missing:
        raise ConfigurationError(
            f"the sandbox needs {', '.join(missing)}: apt-get install bubblewrap util-linux coreutils mount"
            " (--sandbox none does without bubblewrap, and does not protect this machine)"
        )


def _try_out(sandbox: Bubblewrap) -> None:
    try:
        done = sandbox.run(["/usr/bin/true"], limits=_PROBE_LIMITS, read_only={})
    except process.ProcessError as error:
        raise ConfigurationError(f"the bubblewrap sandbox does not start: {error}") from error
    if done.returncode:
        raise ConfigurationError(
            f"the bubblewrap sandbox does not start here ({done.reason()}): unprivileged user namespaces must"
            " be permitted (sysctl -w user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1"
            " kernel.apparmor_restrict_unprivileged_userns=0, as far as they exist)"
        )


class Bubblewrap:
    """A sandbox by bubblewrap: all namespaces unshared, no capability, a system call filter, limits.

    As root, each run has an unprivileged uid of its own (``slots``), and folders that this uid could
    not reach are bound in a mount namespace that ends with the run.
    """

    name = "bubblewrap"

    def __init__(self, filter_program: bytes, root: bool) -> None:
        self._filter = filter_program
        self._root = root

    def resolve(self, inside: PurePosixPath, read_only: Mapping[PurePosixPath, Path]) -> PurePosixPath:
        """Return ``inside``: code has the same paths in every run."""
        return inside

    def run(
        self,
        argv: Sequence[str | PurePosixPath],
        *,
        limits: Limits,
        read_only: Mapping[PurePosixPath, Path],
        interpreter: Interpreter | None = None,
        stdin: bytes | BinaryIO | None = None,
        stdout_to: BinaryIO | None = None,
    ) -> Finished:
        """See Sandbox.run."""
        mounts = dict(read_only)
        command = [str(part) for part in argv]
        libraries = ""
        if interpreter is not None:
            executable, libraries = _inside(interpreter, mounts)
            command.insert(0, executable)
        with ExitStack() as stack:
            descriptor = os.memfd_create("seccomp")
            stack.callback(os.close, descriptor)
            os.write(descriptor, self._filter)
            os.lseek(descriptor, 0, os.SEEK_SET)
            if self._root:
                slot = stack.enter_context(slots.take())
                launcher, mounts = slot.launcher(mounts)
            else:
                launcher = ["setpriv", "--no-new-privs"]
            chain = _bubblewrap(mounts, limits, libraries, descriptor)
            return process.run(
                [*launcher, *chain, *_OWN_SESSION, *_limited(limits), *command],
                timeout=limits.wall_seconds,
                input=stdin,
                env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
                pass_fds=(descriptor,),
                stdout_to=stdout_to,
                guard=Warden(limits, {OUT: "output_bytes", SCRATCH: "scratch_bytes"}),
            )


class Unconfined:
    """No sandbox: only limits per process and on time. For ``--sandbox none``, asked for by name."""

    name = "none"

    def resolve(self, inside: PurePosixPath, read_only: Mapping[PurePosixPath, Path]) -> PurePosixPath:
        """Return the path outside, since there is no inside."""
        for mounted, outside in read_only.items():
            if inside.is_relative_to(mounted):
                return PurePosixPath(outside.resolve(), inside.relative_to(mounted))
        return inside

    def run(
        self,
        argv: Sequence[str | PurePosixPath],
        *,
        limits: Limits,
        read_only: Mapping[PurePosixPath, Path],
        interpreter: Interpreter | None = None,
        stdin: bytes | BinaryIO | None = None,
        stdout_to: BinaryIO | None = None,
    ) -> Finished:
        """See Sandbox.run; /out and /tmp are folders below a temporary one."""
        with tempfile.TemporaryDirectory(prefix="cloudimport-", ignore_cleanup_errors=True) as scratch:
            mounts = {**read_only, OUT: Path(scratch, "out"), SCRATCH: Path(scratch, "tmp")}
            for folder in (OUT, SCRATCH):
                mounts[folder].mkdir()
            command = [str(self.resolve(p, mounts)) if isinstance(p, PurePosixPath) else p for p in argv]
            libraries = ""
            if interpreter is not None:
                command.insert(0, str(interpreter.executable))
                libraries = "" if interpreter.prefix == Path("/usr") else str(interpreter.lib)
            return process.run(
                [*_limited(limits, processes=False), *command],
                timeout=limits.wall_seconds,
                input=stdin,
                env=_environment(str(mounts[SCRATCH]), libraries),
                stdout_to=stdout_to,
                guard=Warden(limits, {}, "processes"),
            )


def _inside(interpreter: Interpreter, mounts: dict[PurePosixPath, Path]) -> tuple[str, str]:
    """Add the interpreter's prefix to ``mounts``; return its executable and library folder inside."""
    if interpreter.prefix.is_relative_to("/usr"):
        return str(interpreter.executable), "" if interpreter.prefix == Path("/usr") else str(interpreter.lib)
    mounts[_PYTHON] = interpreter.prefix
    return str(_PYTHON / interpreter.executable.relative_to(interpreter.prefix)), str(_PYTHON / "lib")


def _environment(home: str, libraries: str) -> dict[str, str]:
    """Return the whole environment of a run, the same for every curator."""
    found = {
        "PATH": _PATH,
        "HOME": home,
        "TMPDIR": home,
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        # One buffer and stack per core would reach the memory limit on a large machine.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    return {**found, "LD_LIBRARY_PATH": libraries} if libraries else found


def _limited(limits: Limits, *, processes: bool = True) -> list[str]:
    """Return a prefix that sets the limits per process (setrlimit(2)) and volunteers for the OOM killer.

    What runs gets SIGXCPU when its time is over, and a second later it is killed if that did not end it.
    It stands inside, where the count of processes is the sandbox's own.
    """
    command = [
        "choom",
        "--adjust=1000",
        "--",
        "prlimit",
        f"--as={limits.address_bytes}",
        f"--data={limits.memory_bytes}",
        f"--cpu={limits.cpu_seconds}:{limits.cpu_seconds + 1}",
        f"--fsize={limits.file_bytes}",
        f"--nofile={limits.open_files}",
        "--core=0",
    ]
    return [*command, *([f"--nproc={limits.processes}"] if processes else []), "--"]


def _system() -> list[str]:
    """Return the bwrap options that show the machine's programs and C library, read-only."""
    options = ["--ro-bind", "/usr", "/usr"]
    for folder in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if os.path.islink(folder):
            options += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            options += ["--ro-bind", folder, folder]
    # Debian's cc and c++ are links that lead there.
    for place in ("/etc/ld.so.cache", "/etc/alternatives"):
        options += ["--ro-bind-try", place, place]
    return options


def _bubblewrap(
    mounts: Mapping[PurePosixPath, Path], limits: Limits, libraries: str, filter_fd: int
) -> list[str]:
    """Return the bwrap command up to its ``--``. Later mounts lie over earlier ones."""
    command = [
        # The shell that binds for root leaves the curator's folder in this variable (/proc/1/environ).
        *("env", "--unset=OLDPWD", "--unset=PWD"),
        "bwrap",
        "--unshare-user",
        "--unshare-all",
        "--disable-userns",
        "--die-with-parent",
    ]
    command += [
        "--uid",
        _INSIDE_ID,
        "--gid",
        _INSIDE_ID,
        "--hostname",
        "sandbox",
        "--cap-drop",
        "ALL",
        *_system(),
    ]
    for inside, outside in mounts.items():
        command += ["--ro-bind", str(outside.absolute()), str(inside)]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    writable = (
        ("/dev/shm", _SHARED_BYTES),
        (str(SCRATCH), limits.scratch_bytes),
        (str(OUT), limits.output_bytes),
    )
    for folder, size in writable:
        command += ["--size", str(size), "--perms", "1777", "--tmpfs", folder]
    command += ["--remount-ro", "/", "--chdir", str(SCRATCH), "--seccomp", str(filter_fd), "--clearenv"]
    for name, value in _environment(str(SCRATCH), libraries).items():
        command += ["--setenv", name, value]
    return [*command, "--"]
