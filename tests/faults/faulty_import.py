"""Run in a child interpreter: import requests again and again, each time with another request failing.

Arguments: the shelf's folder, the fault, for how many requests in a row, every how-many-th k, seconds.
Prints one JSON list: [k, stage, error type, its bases, key, package, text, seconds, what came of it].
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import cloudimport
from cloudimport import bootstrap
from tests.support.faulty import FaultyServer

#: What is read after the import, so that every kind of file is compared.
NAMES = ("requests", "urllib3", "idna", "certifi", "charset_normalizer")


def loaded(root: str) -> dict[str, str]:
    """Return digests of the files of all that was imported, and of the certificates, as they read here.

    What is imported may differ: requests itself swallows an ImportError of what it can do without.
    """
    found = {}
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] in NAMES and file.startswith(root):
            found[file[len(root) + 1 :]] = hashlib.sha256(module.__spec__.loader.get_data(file)).hexdigest()
    path = f"{root}/certifi/cacert.pem"  # by path, as C code and ssl ask for it
    found[path[len(root) + 1 :]] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return found


def purge() -> None:
    """Forget what was imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] in NAMES]:
        del sys.modules[name]


def once(settings: dict[str, str]) -> dict[str, str]:
    """Install, import and read; return the digests."""
    environment = cloudimport.install(**settings)
    importlib.import_module("requests")
    return loaded(environment.root)


def attempt(
    server: FaultyServer, k: int, fault: str | int, times: int, settings: dict[str, str]
) -> list[object]:
    """Import with the k-th request from now failing; then once more without a fault."""
    first = len(server.requests) + k
    server.faults = dict.fromkeys(range(first, first + times), fault)
    began, error = time.monotonic(), None
    try:
        found = once(settings)
    except BaseException as caught:  # noqa: BLE001 whatever it is, it is what the test looks at
        error = caught
    spent = time.monotonic() - began
    stage = "import" if bootstrap.current() else "install"
    server.faults = {}
    if error is not None:
        found = once(settings)
    names = [base.__name__ for base in type(error).__mro__] if error is not None else []
    text = str(error or "")
    if error is not None and not isinstance(error, cloudimport.CloudImportError):
        text = "".join(traceback.format_exception(error))  # it is none of ours: where does it come from?
    fields = [getattr(error, "key", ""), getattr(error, "package", ""), text]
    made = len(server.requests) >= first
    cloudimport.uninstall()
    purge()
    return [k, stage, names, *fields, round(spent, 2), found, made]


def main() -> None:
    """Go through every k until an import makes fewer requests."""
    folder, fault, times, step, work = sys.argv[1:6]
    kind: str | int = int(fault) if fault.isdigit() else fault
    out: list[list[object]] = []
    with FaultyServer(Path(folder)) as server:
        os.environ["AWS_ENDPOINT_URL_S3"] = server.endpoint
        os.environ["CLOUDIMPORT_YANKED"] = "ignore"  # else the background may ask, and is counted
        k = 1
        while not out or out[-1][-1]:
            cache = tempfile.mkdtemp(dir=work)
            settings = {
                "shelf": "s3://bucket",
                "requirements": f"{work}/requirements.txt",
                "cache": cache,
            }
            out.append(attempt(server, k, kind, int(times), settings))
            shutil.rmtree(cache)
            k += int(step)
        heads = {request.method for request in server.requests}
    print(json.dumps({"rows": out[:-1], "methods": sorted(heads)}))  # noqa: T201 its answer


if __name__ == "__main__":
    main()
