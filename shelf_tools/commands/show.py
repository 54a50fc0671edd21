"""``shelf show``."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Any

from rich.table import Table
from rich.text import Text

from cloudimport.ids import Pin, Target
from shelf_tools.console import Call, Commands, counted, date, printable
from shelf_tools.inspect import Shelf, Shown

#: Digits of a digest that are shown.
_DIGITS = 12


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    show = commands.add_parser(
        "show",
        parents=[shelf],
        help="show the builds of one package, and who needs it",
    )
    show.add_argument("pin", metavar="NAME==VERSION")
    show.add_argument("--target", metavar="T", action="append", default=[], help="only these; repeatable")
    show.add_argument("--files", action="store_true", help="its files too, with kinds and sizes")
    show.add_argument("--json", action="store_true", help="print all of it as JSON")
    show.set_defaults(run=run)


def run(call: Call) -> int:
    """Show the builds of a package."""
    options = call.options
    targets = [str(Target.parse(text)) for text in options.target]
    with closing(Shelf(call.url, call.environ)) as shelf:
        found = shelf.show(Pin.parse(options.pin), targets)
    if options.json:
        call.print_json([shown.record() for shown in found])
    for shown in found if not options.json else ():
        call.show(_card(shown))
        if options.files:
            call.show(_files(shown))
    others = (line for shown in found for line in shown.needed.problems)
    for problem in dict.fromkeys((*shelf.problems, *others)):
        call.complain(f"shelf: {problem}")
    return 0


def _publisher(attestation: dict[str, Any]) -> str:
    return " ".join(map(str, attestation.get("publisher", {}).values()))


def _whence(provenance: dict[str, Any]) -> str:
    """Return where the file that a build was made of came from, and when it was uploaded there."""
    file = provenance.get("build", {}).get("sdist") or provenance.get("wheel", {})
    return f"{file.get('index') or file.get('url', '')} {file.get('uploaded', '')}".strip() or "not known"


def _card(shown: Shown) -> Table:
    card = Table(title=Text(f"{shown.pin}  {shown.target}"), show_header=False, title_justify="left")
    wheel = shown.provenance.get("wheel", {})
    mark = shown.yanked
    rows = {
        **({"yanked": f"{date(mark.since)}: {mark.reason}"} if mark else {}),
        "content": shown.content,
        "wheel": f"{wheel.get('name', '')} sha256 {wheel.get('sha256', '')}",
        "from": _whence(shown.provenance),
        "attested by": "\n".join(map(_publisher, shown.provenance.get("attestations", ()))) or "nobody",
        "files": f"{shown.files}, {shown.size} bytes installed, {shown.stored} stored",
        "modules": f"{shown.modules} with bytecode, {shown.native} native files",
        "order": f"{shown.order}; the lead has {shown.lead_stored} bytes",
        "requires": "\n".join(shown.requires),
        "needed by": "\n".join(f"{pin} ({', '.join(lines)})" for pin, lines in shown.needed.packages),
        "environments": "\n".join(
            f"{one.environment[:_DIGITS]}, {counted(len(one.requirements), 'pin')}, "
            f"{'replaced index' if one.replaced else 'index'} {one.pinned[:_DIGITS]}"
            for one in shown.needed.environments
        ),
    }
    for name, value in rows.items():
        card.add_row(name, Text(printable(value)))
    return card


def _files(shown: Shown) -> Table:
    table = Table("file", "kind", "bytes")
    for file in shown.rows:
        kind = f"{file.kind}, executable" if file.executable else file.kind
        table.add_row(Text(printable(file.path)), kind, Text(str(file.size), justify="right"))
    return table
