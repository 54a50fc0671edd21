"""Credentials that only botocore can get (SSO, roles, processes), from a helper process.

Import budget: ``json``, ``subprocess``; this module is imported only when it is needed.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from cloudimport.errors import DeniedError, UnreachableError
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.helper import helper_command, helper_path
from cloudimport.sources.sigv4 import Credentials

#: Seconds that the helper may take: botocore's own retries against STS take up to about 30.
_TIMEOUT = 60.0


def from_botocore(config: SourceConfig, profile: str | None) -> Credentials:
    """Return what botocore's own chain resolves to in a process with ``config.environ``.

    Raises DeniedError (botocore is missing, finds nothing, or is refused) and UnreachableError.
    """
    answer = _run(config, {"path": helper_path(config), "profile": profile})
    error = str(answer.get("error", ""))
    if error == "missing":
        raise DeniedError(
            "these AWS credentials (SSO, an assumed role, web identity or credential_process) need botocore: "
            f"pip install botocore ({answer.get('text')})"
        )
    if error:
        raise DeniedError(f"botocore found no AWS credentials: {answer.get('text')}")
    expires = answer.get("expires")
    token = answer.get("token")
    return Credentials(
        str(answer["access_key"]),
        str(answer["secret_key"]),
        str(token) if token else None,
        float(expires) if expires else None,
    )


def _run(config: SourceConfig, question: dict[str, Any]) -> dict[str, Any]:
    try:
        done = subprocess.run(
            helper_command("botocore_helper.py"),
            input=json.dumps(question).encode(),
            capture_output=True,
            env=dict(config.environ),
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnreachableError(f"botocore did not get AWS credentials within {_TIMEOUT:g} s") from error
    except OSError as error:
        raise UnreachableError(f"cannot start the helper process for AWS credentials: {error}") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise DeniedError(f"the helper process for AWS credentials failed: {' '.join(last)}") from None
    return dict(answer)
