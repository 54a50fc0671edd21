"""Functions that import from a shelf by the layer: what is published for them, and how they are run."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from shelf_tools.lambdabox.box import Box
from tests.support.installed import REQUESTS, publish_installed
from tests.support.lambdas import make_box
from tests.support.s3servers import S3Server
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf, write_tree

WRAPPER = "/opt/cloudimport-exec"
#: The emulator of AWS, in the wheel of the SAM CLI.
_EMULATOR = "samcli/local/rapid/aws-lambda-rie-x86_64"


@dataclass(frozen=True)
class Published:
    """What functions import: on which server and shelf, and the lockfile; ``handler`` is a module's text."""

    server: S3Server
    url: str
    lock: str
    handler: str
    #: Variables of the function, besides those of the server. What is yanked is asked for in the background,
    #: at a time of its own: nothing that can be counted.
    environ: Mapping[str, str] = field(default_factory=lambda: {"CLOUDIMPORT_YANKED": "ignore"})

    def task(self, folder: Path, files: Mapping[str, str] | None = None, *, code: bool = False) -> Path:
        """Make a function's folder: ``app.py``, and the lockfile; with ``code``, the handler installs it."""
        text = ("import cloudimport\ncloudimport.install()\n" if code else "") + self.handler
        return write_tree(folder, {"app.py": text, "cloudimport.lock": self.lock, **(files or {})})


#: Says what it did; nothing in it is about where packages come from.
_FINISH = """

def handler(event, context):
    return {"work": work(), "module": where(), "event": event, **told(event)}

def told(event):
    return measured() if isinstance(event, dict) and event.get("measure") else {}

def measured():
    import cloudimport, os, subprocess, sys
    sizes = {}  # as a program sees them that is none of Python's: what is really there
    find = ["find", "/tmp", "-type", "f", "-printf", "%b %p\\n"]
    ran = subprocess.run(find, capture_output=True, text=True)
    for line in ran.stdout.splitlines():
        blocks, _, path = line.partition(" ")
        part = path.split("/")[4] if path.startswith("/tmp/cloudimport/v1/") else "other"
        if part == "trees":
            part = "native" if ".so" in path else "source" if path.endswith((".py", ".pyc")) else "data"
        sizes[part] = sizes.get(part, 0) + int(blocks) * 512
    return {"stats": cloudimport.stats(), "tmp": sizes, "top": os.listdir("/tmp"), "path": sys.path,
            "handler": os.environ["_HANDLER"]}
"""

_SMALL = (
    """\
import requests

def work():
    return requests.Request("GET", "https://example.org", params={"a": "1"}).prepare().url

def where():
    return requests.__file__
"""
    + _FINISH
)

_LARGE = (
    """\
import pandas
import boto3

def work():
    table = pandas.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "x"]})
    client = boto3.client("s3", region_name="us-east-1")
    return [table.groupby("b").a.sum().to_dict(), client.meta.service_model.service_name]

def where():
    return pandas.__file__
"""
    + _FINISH
)
#: What ``work`` returns.
SMALL_WORK: Any = "https://example.org/?a=1"
LARGE_WORK: Any = [{"x": 4, "y": 2}, "s3"]


def publish_small(folder: Path, server: S3Server, bucket: str) -> Published:
    """Publish requests, as it is installed here, and made packages, for the running Python."""
    shelf = MadeShelf(folder, f"s3://{bucket}/shelf", server.environ)
    publish_installed(shelf, *REQUESTS)
    data = {f"bulk/data/f{n}": f"data {n}\n" for n in range(40)}
    shelf.add("bulk", "1", {"bulk/__init__.py": "", "bulk/large.bin": bytes(1 << 20), **data})
    for name in ("mine", "theirs", "queue", "runtimes"):
        shelf.add(name, "1", {f"{name}.py": "whose = 'shelf'\n"})
    shelf.environment()
    return Published(server, shelf.url, shelf.lock.read_text(), _SMALL)


def publish_large(requirements: Path, server: S3Server, bucket: str, targets: list[str]) -> Published:
    """Publish pandas and boto3 as a curator does, for several targets."""
    url, lock = f"s3://{bucket}/shelf", requirements.with_name("cloudimport.lock")
    wanted = [word for target in targets for word in ("--target", target)]
    ran = run_shelf(
        "publish", "-r", requirements, "--shelf", url, "--lock", lock, *wanted, env=server.environ
    )
    ran.ok()
    return Published(server, url, lock.read_text(), _LARGE)


def box_for(way: str, published: Published, task: Path, runtime: Path, version: str, **more: Any) -> Box:
    """Return a box in which the layer is used in one of the three ways: wrapper, redirect or code."""
    environ = {**published.environ, **more.pop("environ", {})}
    if way == "redirect":
        more["handler"] = "cloudimport.handler"
        environ.setdefault("CLOUDIMPORT_HANDLER", "app.handler")
    elif way == "wrapper":
        more.setdefault("wrapper", WRAPPER)
    return make_box(task, runtime, version, server=published.server, environ=environ, **more)


def emulator() -> Path:
    """Return AWS' runtime interface emulator."""
    return Path(str(distribution("aws-sam-cli").locate_file(_EMULATOR)))


def post(port: int, event: Any) -> Any:
    """Invoke the function behind the emulator; returns what it answered."""
    url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
    request = urllib.request.Request(url, json.dumps(event).encode())
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)
