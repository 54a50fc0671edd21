"""A sandbox like Lambda's, by bubblewrap: what is in it, and starting what runs in it.

As there: a read-only root, only /tmp writable and bounded, an unprivileged user, no /dev/shm, 1,024
processes and threads and as many open files, the documented paths and variables ("Defined runtime
environment variables", AWS Lambda Developer Guide). Of the machine there are its programs and C library,
its network, and what resolving names and TLS need; everything else is absent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from subprocess import DEVNULL
from typing import IO

from cloudimport.errors import ConfigurationError
from shelf_tools import process, seccomp, slots
from shelf_tools.lambdabox.layers import Mount, merged
from shelf_tools.process import Started

MIB = 1 << 20
LANG, TASK = PurePosixPath("/var/lang"), PurePosixPath("/var/task")
RUNTIME, OPT = PurePosixPath("/var/runtime"), PurePosixPath("/opt")
BOOTSTRAP = ("/var/runtime/bootstrap",)
#: Lambda's quotas on processes and threads, and on open files; bytes of /tmp unless asked for more.
PROCESSES, OPEN_FILES, TMP_BYTES = 1024, 1024, 512 * MIB
#: Megabytes that ``AWS_LAMBDA_FUNCTION_MEMORY_SIZE`` says where no limit is set.
_MEMORY_MB = 512
#: Seconds to wait for an unprivileged uid: somebody waits for an answer.
_PATIENCE = 30.0
_PATH = "/usr/local/bin:/usr/bin:/bin"
_UID, _GID = "993", "990"
_DEVICES = ("null", "zero", "full", "random", "urandom")
#: For name resolution and TLS, as Debian and as Fedora have them.
_ETC = (
    *("resolv.conf", "hosts", "nsswitch.conf", "host.conf", "gai.conf", "services", "protocols"),
    *("ssl/certs", "ssl/openssl.cnf", "ca-certificates.conf", "pki/tls", "pki/ca-trust/extracted"),
    *("ld.so.cache", "alternatives", "crypto-policies"),
)


@dataclass(frozen=True)
class Box:
    """What one sandbox is made of. Folders are the machine's, and are seen read-only.

    ``python`` is the prefix of a CPython, at /var/lang (without its site-packages), ``task`` the
    function's folder, at /var/task, ``runtime`` what ``runtime.lay_out`` makes, at /var/runtime;
    ``layers`` are seen as one at /opt, later ones over earlier ones, as AWS extracts them. ``mounts`` are
    more files and folders, each with the path where it is seen. ``handler`` is ``module.function``,
    ``api`` the host:port of the Runtime API, ``environ`` wins over the variables that Lambda sets.
    ``tmp_bytes`` bounds /tmp; ``memory_bytes`` is the limit of each process on private writable memory
    (RLIMIT_DATA), 0 for none. ``entry`` is the command that runs; ``wrapper`` is
    ``AWS_LAMBDA_EXEC_WRAPPER``. With ``confined``, a system call filter is put in front.
    """

    python: Path
    task: Path
    runtime: Path
    handler: str = "lambda_function.lambda_handler"
    name: str = "function"
    layers: tuple[Path, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    api: str = "127.0.0.1:9001"
    tmp_bytes: int = TMP_BYTES
    memory_bytes: int = 0
    processes: int = PROCESSES
    wrapper: str = ""
    mounts: tuple[tuple[Path, str], ...] = ()
    entry: tuple[str, ...] = BOOTSTRAP
    confined: bool = True

    @property
    def version(self) -> str:
        """The version of ``python``, such as ``3.12``. Raises ConfigurationError if there is none."""
        found = [path.name for path in (self.python / "bin").glob("python3.*")]
        numbers = sorted(int(name[8:]) for name in found if re.fullmatch(r"python3\.\d+", name))
        if not numbers:
            raise ConfigurationError(f"{self.python} is no prefix of a CPython: bin/python3.* is not there")
        return f"3.{numbers[-1]}"

    def variables(self) -> dict[str, str]:
        """Return the whole environment of the sandbox."""
        size = self.memory_bytes // MIB or _MEMORY_MB
        found = {
            **_FIXED,
            "_HANDLER": self.handler,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{self.version}",
            "AWS_LAMBDA_RUNTIME_API": self.api,
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(size),
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{self.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{self.name}/[$LATEST]{os.urandom(16).hex()}",
        }
        if self.wrapper:
            found["AWS_LAMBDA_EXEC_WRAPPER"] = self.wrapper
        found.update(self.environ)
        found.setdefault("AWS_DEFAULT_REGION", found["AWS_REGION"])
        return found

    def site_folders(self) -> list[str]:
        """Return where the interpreter keeps packages, as it is seen inside: empty, as Lambda's are."""
        lib = f"lib/python{self.version}"
        found = (f"{lib}/site-packages", "lib/python3/dist-packages", f"local/{lib}/dist-packages")
        return [str(LANG / folder) for folder in found if (self.python / folder).is_dir()]

    def sources(self) -> dict[Path, None]:
        """Return what of the machine's is seen inside, each once."""
        return dict.fromkeys(
            (self.python, self.task, self.runtime, *self.layers, *(source for source, _ in self.mounts))
        )

    def command(
        self,
        seen: Mapping[Path, Path] | None = None,
        filter_fd: int | None = None,
        variables_fd: int | None = None,
    ) -> list[str]:
        """Return the command that starts it.

        ``seen`` says where a source is seen by bwrap if that is not where it is; ``filter_fd`` is a
        descriptor of the system call filter, ``variables_fd`` one of what ``variable_options`` returns,
        NUL behind each: in the command itself everybody on the machine can read them. Raises
        ConfigurationError or OSError.
        """
        command = ["env", "--unset=OLDPWD", "--unset=PWD", "bwrap", *_namespaces(), *_system()]
        places = dict(seen or {})
        command += _bind(places.get(self.python, self.python), LANG)
        for folder in self.site_folders():
            command += ["--tmpfs", folder, "--remount-ro", folder]
        command += [*_bind(places.get(self.runtime, self.runtime), RUNTIME)]
        command += [*_bind(places.get(self.task, self.task), TASK), *self._etc(places)]
        for mount in merged(self.layers, OPT):
            command += _option(mount, places)
        for source, inside in self.mounts:
            command += _bind(places.get(source, source), PurePosixPath(inside))
        command += [*_devices(), "--size", str(self.tmp_bytes), "--perms", "0700", "--tmpfs", "/tmp"]
        command += ["--remount-ro", "/", "--chdir", str(TASK)]
        command += [] if filter_fd is None else ["--seccomp", str(filter_fd)]
        options = self.variable_options() if variables_fd is None else ["--args", str(variables_fd)]
        return [*command, *options, "--", *self._limited(), *self.entry]

    def variable_options(self) -> list[str]:
        """Return the bwrap options that set the environment."""
        pairs = self.variables().items()
        return ["--clearenv", *(word for name, value in pairs for word in ("--setenv", name, value))]

    def start(
        self,
        *,
        stdin: int | IO[bytes] | None = DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Started:
        """Start it, as ``subprocess.Popen`` does; nothing of it outlives ``stop()``, or this process.

        As root, what runs has an unprivileged uid of its own (``slots``). Raises ConfigurationError,
        ProcessError or OSError.
        """
        with ExitStack() as held, ExitStack() as given:
            launcher, seen, uid = ["setpriv", "--no-new-privs"], {}, None
            if os.geteuid() == 0:
                slot = held.enter_context(slots.take(_PATIENCE))
                numbered = {PurePosixPath(str(n)): path for n, path in enumerate(self.sources())}
                launcher, staged = slot.launcher(numbered)
                uid = slot.uid
                seen = {path: staged[number] for number, path in numbered.items()}
            rules = _memory(given, seccomp.program(network=True)) if self.confined else None
            variables = _memory(given, b"".join(os.fsencode(w) + b"\0" for w in self.variable_options()))
            started = process.start(
                [*launcher, *self.command(seen, rules, variables)],
                env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(*(() if rules is None else (rules,)), variables, *pass_fds),
            )
            started.uid = uid
            started.at_end(held.pop_all().close)
        return started

    def _limited(self) -> list[str]:
        """Return a prefix that sets the limits per process, and volunteers for the OOM killer."""
        command = ["choom", "--adjust=1000", "--", "prlimit", f"--nproc={self.processes}"]
        command += [f"--nofile={OPEN_FILES}", "--core=0"]
        return [*command, *([f"--data={self.memory_bytes}"] if self.memory_bytes else []), "--"]

    def _etc(self, seen: Mapping[Path, Path]) -> list[str]:
        options = [word for name in _ETC for word in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")]
        for name in ("passwd", "group"):
            if (self.runtime / "etc" / name).is_file():
                inside = seen.get(self.runtime, self.runtime) / "etc" / name
                options += ["--ro-bind", str(inside), f"/etc/{name}"]
        return options


#: What the managed runtimes of Python set, the same for every function.
_FIXED = {
    "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin",
    "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib"
    ":/opt/lib",
    "LANG": "en_US.UTF-8",
    "TZ": ":UTC",
    "LAMBDA_TASK_ROOT": str(TASK),
    "LAMBDA_RUNTIME_DIR": str(RUNTIME),
    "AWS_REGION": "us-east-1",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
}


def _memory(stack: ExitStack, data: bytes) -> int:
    """Return a descriptor of a file in memory with ``data``, closed by ``stack``."""
    descriptor = os.memfd_create("lambdabox")
    stack.callback(os.close, descriptor)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _namespaces() -> list[str]:
    """Return bwrap's options for namespaces: the network is the machine's."""
    unshared = ("user", "pid", "ipc", "uts", "cgroup-try")
    return [
        *(f"--unshare-{name}" for name in unshared),
        *("--disable-userns", "--die-with-parent", "--new-session", "--hostname", "lambda"),
        *("--uid", _UID, "--gid", _GID, "--cap-drop", "ALL"),
    ]


def _system() -> list[str]:
    """Return the options that show the machine's programs and C library, and a /proc of its own."""
    options = ["--ro-bind", "/usr", "/usr"]
    for folder in ("/bin", "/sbin", "/lib", "/lib64"):
        if os.path.islink(folder):
            options += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            options += ["--ro-bind", folder, folder]
    return [*options, "--proc", "/proc"]


def _devices() -> list[str]:
    """Return the options that make a /dev without /dev/shm and terminals."""
    options = ["--tmpfs", "/dev"]
    for name in _DEVICES:
        options += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        options += ["--symlink", f"/proc/self/fd{target}", f"/dev/{name}"]
    return [*options, "--remount-ro", "/dev"]


def _bind(source: Path, inside: PurePosixPath) -> list[str]:
    return ["--ro-bind", os.path.abspath(source), str(inside)]


def _option(mount: Mount, seen: Mapping[Path, Path]) -> list[str]:
    """Return the options of one path below /opt."""
    if mount.kind == "folder":
        return ["--dir", str(mount.inside)]
    if mount.kind == "link":
        return ["--symlink", mount.link, str(mount.inside)]
    return _bind(seen.get(mount.layer, mount.layer) / mount.relative, mount.inside)
