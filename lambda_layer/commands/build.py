"""``python -m lambda_layer build``."""

from __future__ import annotations

from pathlib import Path

from cloudimport.ids import Target
from lambda_layer.layer import ARCHITECTURES, BUDGET, PYTHONS, Layer, build, file_name
from shelf_tools.console import Call, Commands
from shelf_tools.interpreters import find_interpreter

_ALL = "all"


def add(commands: Commands) -> None:
    """Add the command's arguments."""
    one = commands.add_parser(
        "build",
        help="make the layer's zip for a Python and an architecture",
        description="Make the layer's zip for a Python and an architecture: the same bytes every time. "
        "Needs a CPython of that version on this machine, which compiles for it.",
    )
    one.add_argument("--python", default=_ALL, choices=(*PYTHONS, _ALL), help="default: all of them")
    one.add_argument("--arch", default=_ALL, choices=(*ARCHITECTURES, _ALL), help="default: both")
    one.add_argument(
        "-o", dest="folder", type=Path, default=Path("dist"), metavar="DIR", help="default: dist"
    )
    one.add_argument(
        "--available", action="store_true", help="leave out Pythons that are not on this machine, and say so"
    )
    one.set_defaults(run=run)


def targets(python: str, arch: str) -> list[Target]:
    """Return what was asked for: one target, or all that ``all`` stands for."""
    pythons = PYTHONS if python == _ALL else (python,)
    arches = ARCHITECTURES if arch == _ALL else (arch,)
    return [Target.parse(f"lambda-python{one}-{other}") for one in pythons for other in arches]


def run(call: Call) -> int:
    """Make the layer's zips."""
    options = call.options
    made = 0
    for target in targets(options.python, options.arch):
        if options.available and find_interpreter(target) is None:
            call.complain(f"left out: {file_name(target)} (there is no CPython of its version here)")
            continue
        _say(call, build(target, options.folder, call.environ))
        made += 1
    return 0 if made else 1


def _say(call: Call, layer: Layer) -> None:
    share = 100 * layer.size / BUDGET
    call.say(
        f"{layer.path}: {layer.size:,} bytes ({share:.0f} % of the budget; {layer.plain_size:,} unpacked), "
        f"sha256 {layer.sha256}"
    )
