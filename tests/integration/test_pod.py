"""What docs/lambda.md says of Kubernetes: its container, in a sandbox with what that is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.integration.test_lambda_docs import blocks
from tests.support.children import REPOSITORY, Ran
from tests.support.httpserver import HttpServer, Reply, Request
from tests.support.installed import REQUESTS, publish_installed
from tests.support.s3servers import S3Server
from tests.support.sandboxes import bubblewrap
from tests.support.shelves import MadeShelf

#: What of this machine's root is not the image's.
_NOT_OF_THE_IMAGE = ("proc", "dev", "sys", "cache")
_PROGRAM = """
import cloudimport
env = cloudimport.install()
import requests
print(requests.__file__.startswith(env.root), env.root.startswith("/cache/"))
try:
    open("/written", "w")
except OSError as error:
    print(error.strerror)
"""


def container() -> dict[str, Any]:
    """Return the container of the Deployment."""
    (text,) = blocks("", "yaml")
    (found,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def run_in_pod(program: Path, env: Mapping[str, str]) -> Ran:
    """Run a program as the container does: user 1000, a root that is read-only, its volumes empty."""
    command = ["bwrap", "--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"]
    for name in sorted(set(os.listdir("/")) - set(_NOT_OF_THE_IMAGE)):
        path = f"/{name}"
        link = os.path.islink(path)
        command += ["--symlink", os.readlink(path), path] if link else ["--ro-bind", path, path]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for mount in container()["volumeMounts"]:
        command += ["--perms", "0777", "--tmpfs", mount["mountPath"]]
    command += ["--remount-ro", "/", "--chdir", "/", "--", sys.executable, str(program)]
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_pod_with_pod_identity(moto: S3Server, tmp_path: Path) -> None:
    """With the variables that EKS sets, and those of the Deployment, packages are imported: credentials come
    from the agent, for the token in the file, and nothing is written but in the volume.
    """
    bubblewrap()  # skips where there is none
    bucket = moto.make_bucket(f"shelf-{os.urandom(6).hex()}")
    shelf = MadeShelf(tmp_path, f"s3://{bucket}/some/prefix", moto.environ)
    publish_installed(shelf, *REQUESTS)
    shelf.environment()
    (tmp_path / "token").write_text("a token\n")
    (tmp_path / "main.py").write_text(_PROGRAM)
    keys = {"AccessKeyId": moto.access_key, "SecretAccessKey": moto.secret_key}

    def agent(request: Request) -> Reply:
        if request.headers.get("authorization") != "a token":
            return Reply(401)
        return Reply(body=json.dumps({**keys, "Expiration": "2099-01-01T00:00:00Z"}).encode())

    with HttpServer(agent) as pod_identity:
        env = {
            **{one["name"]: one["value"] for one in container()["env"]},
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{pod_identity.endpoint}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token"),
            "AWS_REGION": moto.region,
            "AWS_ENDPOINT_URL_S3": moto.endpoint,
        }
        ran = run_in_pod(tmp_path / "main.py", env)
        asked = [request.target for request in pod_identity.requests]
    assert ran.ok() == "True True\nRead-only file system"
    assert set(asked) == {"/v1/credentials"}
