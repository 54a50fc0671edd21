"""Run a command that does not outlive who asked for it: ``leash.py DESCRIPTOR COMMAND...``.

The descriptor is the read end of a pipe whose only writer is the asking process. First the command's
environment comes through it, as marshal writes a dict (None: this process's own); then nothing, and
when it ends, the writer is dead, and this process group is killed. A death signal
(PR_SET_PDEATHSIG) cannot do that: every program of a chain has to ask for it anew, and one asked for
after the death never comes.

Run as a script by the asking process's own interpreter, as leader of a new session.
"""

from __future__ import annotations

import marshal
import os
import signal
import sys


def main(leash: int, command: list[str]) -> None:
    """Leave a watcher behind and become ``command``. Raises OSError when that cannot be started."""
    try:
        with open(leash, "rb", closefd=False) as pipe:
            environment = marshal.load(pipe)  # noqa: S302 (of the process that started this one)
    except EOFError:
        return  # the writer died before anything was begun
    if os.fork() == 0:
        # Twice, so that the command has no child that it does not know of.
        if os.fork() == 0:
            _watch(leash)
        os._exit(0)
    os.wait()
    os.close(leash)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python itself, and that is inherited
        signal.signal(ignored, signal.SIG_DFL)
    os.execvpe(command[0], command, os.environ if environment is None else environment)  # noqa: S606 (what it is for)


def _watch(leash: int) -> None:
    """Kill the process group, this process too, when the writer of ``leash`` is gone."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.read(leash, 1)
    os.kill(0, signal.SIGKILL)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), sys.argv[2:])
    except OSError as error:
        sys.exit(f"{sys.argv[2]} cannot be started: {error.strerror}")
