"""What uv says, in one line each: of newer and older versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shelf_tools.uv_command import UvError, messages, run_uv

OLD = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because foo was not found in the package registry and you require foo, we
      can conclude that your requirements are unsatisfiable.

      hint: Pre-releases are available for `foo` in the requested range
"""
NEW = """\
warning: `six==1` is yanked (reason: "broken")
error: No solution found when resolving dependencies
  cause: Because a==1 depends on b>=2 and you require a==1, we can conclude that you require b>=2.
         And because you require b<1, we can conclude that your requirements are unsatisfiable.

hint: Wheels are required for `b`
"""
CHAIN = """\
error: Failed to fetch: https://me:secret@example.invalid/simple/six/
  cause: error sending request for url (https://me:secret@example.invalid/simple/six/)
  cause: client error (Connect)
  cause: dns error
  cause: failed to lookup address information: Name or service not known
"""
USAGE = "error: invalid value 'x' for '--exclude-newer <D>': no date\n\nFor more information, try '--help'.\n"

NONE = "No solution found when resolving dependencies: Because"
OVER = "we can conclude that your requirements are unsatisfiable"
OLD_HINT = "hint: Pre-releases are available for `foo` in the requested range"
BOUND = f"{NONE} a==1 depends on b>=2 and you require a==1, we can conclude that you require b>=2."
FETCH = "Failed to fetch: https://****@example.invalid/simple/six/"


@pytest.mark.parametrize(
    ("said", "error", "warnings"),
    [
        (
            OLD,
            f"{NONE} foo was not found in the package registry and you require foo, {OVER}: {OLD_HINT}",
            [],
        ),
        (
            NEW,
            f"{BOUND} And because you require b<1, {OVER}: hint: Wheels are required for `b`",
            ['`six==1` is yanked (reason: "broken")'],
        ),
        (CHAIN, f"{FETCH}: failed to lookup address information: Name or service not known", []),
        (USAGE, "invalid value 'x' for '--exclude-newer <D>': no date", []),
    ],
)
def test_a_message_is_one_line(said: str, error: str, warnings: list[str]) -> None:
    """Causes and hints are joined to what they are of; steps that say nothing and passwords are left out."""
    assert messages(said) == ([error], warnings)


def test_what_uv_cannot_do_is_raised(tmp_path: Path) -> None:
    """The real uv's refusal comes as an error of one line."""
    with pytest.raises(UvError) as caught:
        run_uv(["pip", "compile", str(tmp_path / "gone.in")], os.environ)
    assert "gone.in" in str(caught.value)
    assert "\n" not in str(caught.value)
