"""A helper process: asks botocore for credentials, prints them as JSON on its standard output.

Run by ``botocore_credentials``, never imported: it stands alone, with the ``sys.path`` that it
reads from its standard input together with the profile.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def _resolve(profile: str | None) -> dict[str, Any]:
    from botocore.session import Session

    found = Session(profile=profile).get_credentials()
    if found is None:
        return {"error": "none", "text": "its credential chain came to an end"}
    frozen = found.get_frozen_credentials()
    # Set by every refreshable kind; there is no public name for it.
    expires = getattr(found, "_expiry_time", None)
    return {
        "access_key": frozen.access_key,
        "secret_key": frozen.secret_key,
        "token": frozen.token,
        "expires": expires.timestamp() if expires is not None else None,
    }


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    sys.path[:] = question["path"]
    try:
        return _resolve(question["profile"])
    except ImportError as error:
        return {"error": "missing", "text": str(error)}
    except Exception as error:  # noqa: BLE001 - a process that cannot say what went wrong helps nobody
        return {"error": "failed", "text": " ".join(f"{type(error).__name__}: {error}".split())}


def main() -> None:
    """Answer one question."""
    question = json.load(sys.stdin)
    # What a credential process prints must not mix with the answer.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    json.dump(_answer(question), out)
    out.flush()


if __name__ == "__main__":
    main()
