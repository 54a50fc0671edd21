"""What is at /var/runtime of a sandbox: the program that starts the runtime, and the runtime."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from shelf_tools import inside
from shelf_tools.swap import new_folder

#: As in the managed runtimes: the wrapper gets the runtime's command, and has to be executable.
_BOOTSTRAP = """\
#!/bin/sh
python=/var/lang/bin/python{version}
if [ -z "$AWS_LAMBDA_EXEC_WRAPPER" ]; then
  exec "$python" /var/runtime/bootstrap.py
fi
if [ ! -f "$AWS_LAMBDA_EXEC_WRAPPER" ]; then
  echo "$AWS_LAMBDA_EXEC_WRAPPER: does not exist" >&2
  exit 127
fi
if [ ! -x "$AWS_LAMBDA_EXEC_WRAPPER" ]; then
  echo "$AWS_LAMBDA_EXEC_WRAPPER: is not an executable" >&2
  exit 126
fi
exec "$AWS_LAMBDA_EXEC_WRAPPER" "$python" /var/runtime/bootstrap.py
"""
_USERS = "root:x:0:0:root:/root:/sbin/nologin\nsbx_user1051:x:993:990::/home/sbx_user1051:/sbin/nologin\n"
#: What says that a folder is whole, and ours.
_MARK = ".complete"
_GROUPS = "root:x:0:\nsbx_user1051:x:990:\n"


def lay_out(folder: Path, version: str, prelude: str = "") -> Path:
    """Fill ``folder``, a new or an empty one, for a Python (``3.12``), and return it.

    ``prelude`` is Python code that runs before the handler's module is imported. A package
    ``awslambdaric`` that is put into the folder is used; without it, our own client is. Raises OSError.
    """
    (folder / "etc").mkdir(parents=True, exist_ok=True)
    for name, data in _files(version, prelude).items():
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o755 if name == "bootstrap" else 0o644)
    # Whatever the umask: another user reads it.
    for path in (folder, folder / "etc"):
        path.chmod(0o755)
    return folder


def laid_out(folder: Path, version: str, prelude: str = "") -> Path:
    """Return a folder below ``folder`` as ``lay_out`` fills one, made once for its contents.

    What runs sees it: it is never written to again. Raises OSError.
    """
    files = _files(version, prelude)
    digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
    place = folder / f"{version}-{digest[:16]}"
    if not (place / _MARK).is_file():
        with new_folder(str(place), lambda found: os.path.isfile(f"{found}/{_MARK}")) as made:
            lay_out(Path(made), version, prelude)
            Path(made, _MARK).touch()
    return place


def _files(version: str, prelude: str) -> dict[str, bytes]:
    """Return what is in the folder, by path."""
    scripts = Path(inside.__file__).parent
    found = {
        "bootstrap": _BOOTSTRAP.format(version=version).encode(),
        "bootstrap.py": (scripts / "lambda_bootstrap.py").read_bytes(),
        "lambda_runtime.py": (scripts / "lambda_runtime.py").read_bytes(),
        "etc/passwd": _USERS.encode(),
        "etc/group": _GROUPS.encode(),
    }
    return {**found, "bootstrap_prelude.py": prelude.encode()} if prelude else found
