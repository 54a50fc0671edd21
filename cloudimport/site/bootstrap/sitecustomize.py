"""Runs when a child interpreter starts: installs the parent's environment, runs the next sitecustomize.

This folder stands on PYTHONPATH of children only (see cloudimport/site/children.py). It takes
itself off ``sys.path`` again, so that the child's path is what it would be without us. A child may
be any Python: what stands here is valid in 2.7 and has no annotations.
"""

# mypy: ignore-errors

import os
import sys


def _install():
    import json

    setting = os.environ.get("CLOUDIMPORT_CHILD")
    if not setting:
        return
    record = json.loads(setting)
    if list(sys.version_info[:2]) + [sys.prefix] != record["python"]:
        return  # another interpreter, or another virtual environment: it would not see our site-packages
    if "cloudimport" not in sys.modules:
        _load_runtime(record["runtime"])
    from cloudimport.bootstrap import install_child

    install_child(record)


def _load_runtime(folder):
    """Load the package from where the parent has it, which need not be on this interpreter's path."""
    from importlib.util import module_from_spec, spec_from_file_location

    init = os.path.join(folder, "__init__.py")
    spec = spec_from_file_location("cloudimport", init, submodule_search_locations=[folder])
    module = sys.modules["cloudimport"] = module_from_spec(spec)
    spec.loader.exec_module(module)


def _next_sitecustomize():
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    ours = sys.modules.pop("sitecustomize", None)
    try:
        import sitecustomize  # noqa: F401
    except ImportError as error:  # (Python 2 and 3.5 come here, too)
        if getattr(error, "name", "sitecustomize") != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours


try:
    _install()
finally:
    _next_sitecustomize()
