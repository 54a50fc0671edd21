"""``run_example.py example|modules NAME``: what a first example comes to, or the import of all modules."""

import importlib
import json
import os
import pkgutil
import re
import sys
import warnings
from pathlib import Path

if "CLOUDIMPORT_LOCK" in os.environ:
    import cloudimport

    cloudimport.install()

#: Whose import does something: games, test suites, programs.
_ACTIVE = re.compile(r"\.(tests?|testing|examples|demos|__main__)(\.|$)|\._?test_")


def modules(distribution):
    """Return, for each module, "ok" or what its import raises."""
    from importlib.metadata import files

    found = {}

    def visit(name):
        try:
            module = importlib.import_module(name)
        except BaseException as error:  # noqa: BLE001 - is a result
            found[name] = [type(error).__name__, str(error)]
            return
        found[name] = "ok"
        for below in pkgutil.iter_modules(getattr(module, "__path__", ()), name + "."):
            if not _ACTIVE.search(below.name):
                visit(below.name)

    tops = {re.split(r"[/.]", str(path))[0] for path in files(distribution) if path.suffix in (".py", ".so")}
    warnings.simplefilter("ignore")
    for top in sorted(top for top in tops if top.isidentifier()):
        visit(top)
    return found


def main():
    """Print the result as JSON, last of all."""
    _, what, name = sys.argv
    sys.argv = sys.argv[:1]
    if what == "modules":
        result = modules(name.replace("_", "-"))
    else:
        sys.path.append(str(Path(__file__).parent))
        result = getattr(importlib.import_module("examples"), name)()
    sys.stdout.write("\n" + json.dumps(result, sort_keys=True, default=repr) + "\n")


if __name__ == "__main__":
    main()
