"""Reading files with functions: nothing is run, and all that is wrong is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from shelf_tools.running.functions import MOST, Program, read_program


def read(folder: Path, text: str | bytes) -> Program:
    """Write and read a file."""
    path = folder / "file.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_program(path)


@pytest.mark.parametrize(
    "text",
    [
        "import cloudimport\n@cloudimport.requirements({'six': '1'})\ndef f(): pass",
        "import cloudimport as c\n@c.requirements({'six': '1'})\ndef f(): pass",
        "from cloudimport import requirements\n@requirements({'six': '1'})\ndef f(): pass",
        "from cloudimport import requirements as r\n@r({'six': '1'})\nasync def f(): pass",
        "@requirements({'six': '1'})\ndef f(): pass",
        "import cloudimport\nN = {'six': '1'}\n@cloudimport.requirements(N)\ndef f(): pass",
        "import cloudimport, x\n@x.other\n@cloudimport.requirements({'six': '1'})\n@x.more()\ndef f(): pass",
    ],
)
def test_the_decorator_is_known_by_whatever_name(tmp_path: Path, text: str) -> None:
    """And only functions that have it can be run then."""
    program = read(tmp_path, text + "\ndef helper(): pass\n")
    assert list(program.functions) == ["f"]
    assert program.functions["f"].needs == ("six==1",)


@pytest.mark.parametrize(
    "text",
    [
        "def requirements(x): return lambda f: f\n@requirements({'six': '1'})\ndef f(): pass",
        "from other import requirements\n@requirements({'six': '1'})\ndef f(): pass",
        "import other\n@other.requirements({'six': '1'})\ndef f(): pass",
    ],
)
def test_decorators_of_others_are_theirs(tmp_path: Path, text: str) -> None:
    """Though they are called the same."""
    assert read(tmp_path, text).functions["f"].needs == ()


def test_without_decorators_all_public_functions_can_be_run(tmp_path: Path) -> None:
    """Of several of one name the last, as in Python."""
    program = read(tmp_path, "def a(x): pass\ndef _b(): pass\ndef a(y): pass\nclass C:\n def d(self): pass\n")
    assert [one.name for one in program.functions["a"].parameters] == ["y"]
    assert list(program.functions) == ["a"]


def test_parameters(tmp_path: Path) -> None:
    """Kinds, defaults, and which are text."""
    program = read(tmp_path, "def f(a: str, b=1, /, c: 'str'=2, *d, e, f: int=3, **g): pass")
    rows = [(p.name, p.kind.name, p.has_default, p.is_text) for p in program.functions["f"].parameters]
    assert rows == [
        ("a", "POSITIONAL_ONLY", False, True),
        ("b", "POSITIONAL_ONLY", True, False),
        ("c", "POSITIONAL_OR_KEYWORD", True, True),
        ("d", "VAR_POSITIONAL", True, False),
        ("e", "KEYWORD_ONLY", False, False),
        ("f", "KEYWORD_ONLY", True, False),
        ("g", "VAR_KEYWORD", True, False),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(:\n", "file.py:1: it is not valid Python"),
        ("this isn't even python", "file.py:1: it is not valid Python"),
        ("\n\ndef f():\n\tpass\n  x\n", "it is not valid Python"),
        (b"x = '\0'", "file.py"),
        (b"# coding: nonsense\n", "file.py"),
        (b"\xff\xfe\x00", "file.py"),
        ("x = " + "(" * 5000 + ")" * 5000, "file.py"),
        ("x = " + "-" * 50_000 + "1", "file.py"),
        ("", "has no function"),
        ("print(1)", "has no function"),
        ("# " + "x" * MOST, "at most"),
        ("@requirements\ndef f(): pass", "takes one dict"),
        ("@requirements()\ndef f(): pass", "takes one dict"),
        ("@requirements({}, {})\ndef f(): pass", "takes one dict"),
        ("@requirements(dict(six='1'))\ndef f(): pass", "literal"),
        ("@requirements(open('/etc/passwd').read())\ndef f(): pass", "literal"),
        ("@requirements(['six'])\ndef f(): pass", "takes a dict"),
        ("@requirements({'six': '>=x'})\ndef f(): pass", "file.py:1: 'six>=x' has no version or range"),
        ("N = {}\nN = {'a': ''}\n@requirements(N)\ndef f(): pass", "literal"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    """A crash of the reader, or a look at the file system, is none."""
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_told(tmp_path: Path) -> None:
    """With lines."""
    with pytest.raises(ConfigurationError) as caught:
        read(
            tmp_path,
            "@requirements({'a b': '', 'c': '1 x'})\ndef f(): pass\n@requirements(3)\ndef g(): pass\n",
        )
    assert [line.partition("file.py:")[2][:2] for line in str(caught.value).split("\n")] == ["1:", "1:", "3:"]
