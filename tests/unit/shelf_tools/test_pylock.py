"""``pylock.toml`` (PEP 751) as a list of pins."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Pin, Target
from shelf_tools.pins import Link, wanted
from shelf_tools.pylock import read_pylock

A, B = "a" * 64, "b" * 64
HEAD = 'lock-version = "1.0"\ncreated-by = "hand"\n'
TARGET = Target.parse("cp312-manylinux_2_28_x86_64")


def _package(name: str, *more: str, version: str = "1.0", digest: str = A, wheel: str = "") -> str:
    wheel = wheel or f'url = "https://example.invalid/{name}-{version}-py3-none-any.whl"'
    hashes = f'hashes = {{ sha256 = "{digest}" }}'
    wheels = f"wheels = [{{ {wheel}, {hashes} }}]"
    return "\n".join(["[[packages]]", f'name = "{name}"', f'version = "{version}"', *more, wheels, ""])


def test_pins_with_their_wheels(tmp_path: Path) -> None:
    """Each package is a pin with its marker and hashes, and its wheels come from where the file says."""
    text = (
        HEAD
        + _package("a", "marker = \"python_version < '3.13'\"")
        + _package("b", version="2.0", digest=B, wheel='path = "wheels/b-2.0-py3-none-any.whl"')
    )
    listed = read_pylock(text, tmp_path / "pylock.toml")
    assert [one.line for one in listed.requirements] == ['a==1 ; python_version < "3.13"', "b==2"]
    assert [one.hashes for one in listed.requirements] == [(f"sha256:{A}",), (f"sha256:{B}",)]
    assert [one.where for one in listed.requirements] == [f"{tmp_path}/pylock.toml:{at}" for at in (3, 8)]
    assert listed.links[Pin("a", "1")][0].url == "https://example.invalid/a-1.0-py3-none-any.whl"
    assert listed.links[Pin("b", "2")][0].url == f"file://{tmp_path}/wheels/b-2.0-py3-none-any.whl"


def test_source_distributions_are_listed_with_their_hashes(tmp_path: Path) -> None:
    """A pin's source distribution is one of its files, beside wheels or alone; the index gives its page."""
    sdist = f'sdist = {{ path = "b-2.tar.gz", hashes = {{ sha256 = "{B}" }} }}'
    both = _package("a", 'index = "https://example.invalid/simple"', sdist.replace("b-2", "a-1.0"))
    text = HEAD + both + f'[[packages]]\nname = "b"\nversion = "2"\n{sdist}\n'
    listed = read_pylock(text, tmp_path / "pylock.toml")
    assert [one.hashes for one in listed.requirements] == [(f"sha256:{A}", f"sha256:{B}"), (f"sha256:{B}",)]
    assert [(link.filename, link.is_wheel, link.page) for link in listed.links[Pin("a", "1")]] == [
        ("a-1.0-py3-none-any.whl", True, "https://example.invalid/simple/a/"),
        ("a-1.0.tar.gz", False, "https://example.invalid/simple/a/"),
    ]
    alone = Link("b-2.tar.gz", f"file://{tmp_path}/b-2.tar.gz", (f"sha256:{B}",))
    assert listed.links[Pin("b", "2")] == (alone,)
    weak = read_pylock(HEAD + both.replace(f'sha256 = "{B}"', f'md5 = "{B}"'), tmp_path / "pylock.toml")
    assert [link.is_wheel for link in weak.links[Pin("a", "1")]] == [True]


def test_extras_and_groups_choose() -> None:
    """Without a choice the file's default groups hold; a choice takes their place."""
    head = HEAD + 'extras = ["web"]\ndependency-groups = ["dev"]\ndefault-groups = ["default"]\n'
    text = (
        head
        + _package("a", "marker = \"'default' in dependency_groups\"")
        + _package("b", "marker = \"'web' in extras and python_version > '3'\"")
        + _package("c", "marker = \"'dev' in dependency_groups or 'web' in extras\"")
    )

    def lines(*choice: object) -> list[str]:
        return [one.line for one in read_pylock(text, Path("pylock.toml"), *choice).requirements]  # type: ignore[arg-type]

    assert lines() == ["a==1"]
    assert lines(["Web"]) == ["a==1", 'b==1 ; python_version > "3"', "c==1"]
    assert lines([], ["dev"]) == ["c==1"]
    with pytest.raises(ConfigurationError) as caught:
        lines(["nope"], ["gone"])
    assert str(caught.value).splitlines() == [
        "pylock.toml: has no extra 'nope': it has web",
        "pylock.toml: has no dependency group 'gone': it has default, dev",
    ]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ('requires-python = ">=3.13"\n', "the list is for Python >=3.13: cp312"),
        ("environments = [\"sys_platform == 'win32'\"]\n", 'the list is for sys_platform == "win32": cp312'),
    ],
)
def test_a_lock_for_others_is_an_error(head: str, said: str) -> None:
    """A target that the file was not locked for is refused."""
    listed = read_pylock(HEAD + head + _package("a"), Path("pylock.toml"))
    with pytest.raises(ConfigurationError, match=said):
        wanted(listed, TARGET)


def test_all_that_cannot_be_published_is_told_at_once() -> None:
    """A folder, and a weak hash of either kind, are a line each, with the line of the file."""
    sdist = f'sdist = {{ url = "https://example.invalid/b-1.tar.gz", hashes = {{ md5 = "{A}" }} }}\n'
    text = (
        HEAD
        + '[[packages]]\nname = "a"\ndirectory = { path = "." }\n'
        + f'[[packages]]\nname = "b"\nversion = "1"\n{sdist}'
        + _package("c").replace("sha256", "md5")
        + _package("d", digest="short")
    )
    with pytest.raises(ConfigurationError) as caught:
        read_pylock(text, Path("pylock.toml"))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"pylock.toml:{at}", name] for at, name in ((3, "a"), (6, "b"), (10, "c"), (14, "d"))
    ]
    reasons = ("is a folder", "b-1.tar.gz has no sha256", "whl has no sha256", "not a sha256")
    assert all(reason in line for line, reason in zip(lines, reasons, strict=True))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = ", "is not TOML"),
        ('lock-version = "2.0"\ncreated-by = "x"\npackages = []\n', "not a lock file of PEP 751"),
        (HEAD + '[[packages]]\nname = "a"\n', "not a lock file of PEP 751"),
        (HEAD + _package("a", "marker = \"nonsense == '1'\""), "not a lock file of PEP 751"),
    ],
)
def test_what_is_no_lock_file_is_one_line(text: str, said: str) -> None:
    """Broken files are named, with what is wrong."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        read_pylock(text, Path("pylock.toml"))
    assert str(caught.value).startswith("pylock.toml: ")
    assert "\n" not in str(caught.value)
