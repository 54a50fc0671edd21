"""Bytecode for modules, compiled by the interpreter that will run it."""

from __future__ import annotations

import marshal
from collections.abc import Mapping

from cloudimport.errors import CloudImportError
from shelf_tools import process
from shelf_tools.interpreters import Interpreter

#: Seconds; a hundred modules take one.
_TIMEOUT = 120.0
#: Both sides know version 4 of the format (Python 3.4).
_MARSHAL = 4

#: In a new interpreter, in the same order: what ``marshal`` writes depends on which objects are shared.
#: Flags 1: by hash, unchecked (PEP 552): the source is never looked at, whatever dates unpacking gives it.
_PROGRAM = f"""\
import sys
sys.path.pop(0)
import marshal
from importlib.util import MAGIC_NUMBER, source_hash
compiled = {{}}
for name, source in sorted(marshal.load(sys.stdin.buffer).items()):
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    head = MAGIC_NUMBER + (1).to_bytes(4, "little") + source_hash(source)
    compiled[name] = head + marshal.dumps(code)
marshal.dump(compiled, sys.stdout.buffer, {_MARSHAL})
"""


def compile_for(interpreter: Interpreter, modules: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the pyc files of ``modules``: source by the path that it will have, which tracebacks show.

    Raises CloudImportError.
    """
    done = process.run(
        [str(interpreter.executable), "-S", "-s", "-c", _PROGRAM],
        timeout=_TIMEOUT,
        input=marshal.dumps(dict(modules), _MARSHAL),
        env={"PYTHONHASHSEED": "0"},  # before 3.11 sets of constants lie in the order of hashes
    )
    if done.returncode:
        raise CloudImportError(f"{interpreter} cannot compile the runtime: {done.reason()}")
    found: dict[str, bytes] = marshal.loads(done.stdout)  # noqa: S302 (what our own program wrote)
    return found
