"""What is at /var/runtime of a sandbox: the program that starts the runtime, and the runtime."""

from __future__ import annotations

import shutil
from pathlib import Path

from shelf_tools import inside

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
_GROUPS = "root:x:0:\nsbx_user1051:x:990:\n"


def lay_out(folder: Path, version: str, prelude: str = "") -> Path:
    """Fill ``folder``, a new or an empty one, for a Python (``3.12``), and return it.

    ``prelude`` is Python code that runs before the handler's module is imported. A package
    ``awslambdaric`` that is put into the folder is used; without it, our own client is. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bootstrap = folder / "bootstrap"
    bootstrap.write_text(_BOOTSTRAP.format(version=version))
    bootstrap.chmod(0o755)
    scripts = Path(inside.__file__).parent
    shutil.copyfile(scripts / "lambda_bootstrap.py", folder / "bootstrap.py")
    shutil.copyfile(scripts / "lambda_runtime.py", folder / "lambda_runtime.py")
    if prelude:
        (folder / "bootstrap_prelude.py").write_text(prelude)
    (folder / "etc").mkdir(exist_ok=True)
    (folder / "etc" / "passwd").write_text(_USERS)
    (folder / "etc" / "group").write_text(_GROUPS)
    folder.chmod(0o755)
    return folder
