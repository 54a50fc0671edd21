"""``shelf key``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cloudimport.ids import Pin
from shelf_tools.console import Call, Commands, counted
from shelf_tools.inspect import Shelf
from shelf_tools.signing import new_key, open_key
from shelf_tools.trust import sign_build


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    key = commands.add_parser(
        "key",
        help="make and show keys that 'publish --sign' signs with; sign builds that are there",
        description="A key signs environments, lockfiles and builds (Ed25519). Readers check the signatures "
        "if CLOUDIMPORT_ROOT, or the lockfile, has the public key.",
    )
    actions = key.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make a key pair in a new file; prints the public key")
    new.set_defaults(run=_new)
    show = actions.add_parser("show", help="print the public key of a key file")
    show.set_defaults(run=_show)
    sign = actions.add_parser(
        "sign",
        parents=[shelf],
        help="sign builds that are on the shelf, as they are, after verifying them",
    )
    sign.set_defaults(run=_sign)
    for action in (new, show, sign):
        action.add_argument("file", metavar="FILE", type=Path, help="the key file")
    sign.add_argument("pins", metavar="PIN", nargs="*", help="name==version; default: all")


def _new(call: Call) -> int:
    call.say(new_key(call.options.file).key)
    return 0


def _show(call: Call) -> int:
    call.say(open_key(call.options.file).key)
    return 0


def _sign(call: Call) -> int:
    signer = open_key(call.options.file)
    shelf = Shelf(call.url, call.environ)
    pins = [Pin.parse(pin) for pin in call.options.pins]
    signed = sum(
        sign_build(shelf.store, shelf.source, pin, str(target), [signer])
        for pin, target in shelf.select(pins)
    )
    call.say(f"{counted(signed, 'build')} signed by {signer.key}")
    return 0
