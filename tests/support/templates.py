"""Templates as the user makes them, read as data, checked by the vendor's tools, and deployed to moto."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from tests.support.children import REPOSITORY, Ran
from tests.support.s3servers import S3Server
from tests.support.shelfcommand import publisher_environment

#: Seconds; ``sam deploy`` waits in steps of some seconds.
_TIMEOUT = 180


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms as its long ones."""


def _construct(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        value: Any = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_scalar(node)
    if tag == "GetAtt":
        value = value.split(".")
    return {tag if tag == "Ref" else f"Fn::{tag}": value}


_Loader.add_multi_constructor("!", _construct)


def read_template(text: str) -> dict[str, Any]:
    """Return a template as a dict, with long forms of functions."""
    found: dict[str, Any] = yaml.load(text, _Loader)
    return found


def lambda_layer(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Ran:
    """Run ``python -m lambda_layer``."""
    return _run([sys.executable, "-m", "lambda_layer", *map(str, arguments)], env, cwd)


def tool(
    name: str, *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Ran:
    """Run a program of this environment, such as ``sam``, which then neither phones home nor asks."""
    quiet = {"SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "us-east-1"}
    program = str(Path(sys.executable).with_name(name))
    return _run([program, *map(str, arguments)], {**quiet, **(env or {})}, cwd)


def _run(command: Sequence[str], env: Mapping[str, str] | None, cwd: Path | None) -> Ran:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env=publisher_environment(env),
        cwd=cwd or REPOSITORY,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def deploy(server: S3Server, text: str, **parameters: str) -> dict[str, str]:
    """Make a stack; return its outputs, and the physical names of its resources."""
    name = f"stack-{os.urandom(4).hex()}"
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    with closing(server.client("cloudformation")) as client:
        client.create_stack(
            StackName=name, TemplateBody=text, Parameters=given, Capabilities=["CAPABILITY_IAM"]
        )
        (stack,) = client.describe_stacks(StackName=name)["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        made = client.describe_stack_resources(StackName=name)["StackResources"]
    names = {
        one["LogicalResourceId"]: one.get("PhysicalResourceId", "")
        for one in made
        if "LogicalResourceId" in one
    }
    return {**names, **{one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}}
