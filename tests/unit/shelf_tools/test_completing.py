"""What is added to a requirements file leaves all that was in it."""

from __future__ import annotations

import pytest

from cloudimport.format.requirements import decode, parse_lines
from shelf_tools.completing import added

LINES = ("# Added:", "b==2 \\", "    --hash=sha256:" + "b" * 64)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a==1\n",
        "a==1",
        "a==1\r\nc==3\r\n",
        "a==1 \\\n",
        "a==1 \\\n    --hash=sha256:" + "a" * 64,
        "# end \\",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lines_are_added_at_the_end(text: str, encoding: str) -> None:
    """Whatever its line ends, its encoding and its last line, the file keeps its bytes and gets the lines."""
    data = text.encode(encoding)
    whole = added(data, LINES)
    assert whole.startswith(data)
    was = [one.line for one in parse_lines(decode(data).splitlines())] if "a" in text else []
    now = parse_lines(decode(whole).splitlines())
    assert [one.line for one in now] == [*was, "b==2"]
    assert now[-1].hashes == ("sha256:" + "b" * 64,)
    assert ("\r\n" in text) == ("\r\n" in decode(whole))
