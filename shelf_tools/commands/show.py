"""``shelf show``."""

from __future__ import annotations

import argparse
from typing import Any

from rich.table import Table
from rich.text import Text

from cloudimport.ids import Pin
from shelf_tools.console import Call, Commands, printable
from shelf_tools.inspect import Shelf, Shown


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    show = commands.add_parser("show", parents=[shelf], help="show the builds of one package")
    show.add_argument("pin", metavar="NAME==VERSION")
    show.set_defaults(run=run)


def run(call: Call) -> int:
    """Show the builds of a package."""
    for shown in Shelf(call.url, call.environ).show(Pin.parse(call.options.pin)):
        call.show(_card(shown))
    return 0


def _publisher(attestation: dict[str, Any]) -> str:
    return " ".join(map(str, attestation.get("publisher", {}).values()))


def _card(shown: Shown) -> Table:
    card = Table(title=Text(f"{shown.pin}  {shown.target}"), show_header=False, title_justify="left")
    wheel = shown.provenance.get("wheel", {})
    rows = {
        "content": shown.content,
        "wheel": f"{wheel.get('name', '')} sha256 {wheel.get('sha256', '')}",
        "from": f"{wheel.get('index', '')} {wheel.get('uploaded', '')}".strip() or "not known",
        "attested by": "\n".join(map(_publisher, shown.provenance.get("attestations", ()))) or "nobody",
        "files": f"{shown.files}, {shown.size} bytes installed, {shown.stored} stored",
        "modules": f"{shown.modules} with bytecode, {shown.native} native files",
        "order": f"{shown.order}; the lead has {shown.lead_stored} bytes",
        "requires": "\n".join(shown.requires),
    }
    for name, value in rows.items():
        card.add_row(name, Text(printable(value)))
    return card
