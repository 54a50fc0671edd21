"""The bytes of format version 1, as docs/format.md has them: they are on shelves, and must not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloudimport.cache.disk import frame
from cloudimport.format import keys
from cloudimport.format.content import Content
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.layout import BuildPointer, Layout
from cloudimport.format.lock import Lock
from cloudimport.format.records import EnvironmentPointer, canonical, requirements_digest, sha256
from cloudimport.format.requirements import parse_lines
from tests.support import records

GOLDEN = Path(__file__).parent / "golden"
BUMP = (
    "the bytes of {name} differ from those of format version 1, which are on shelves already: a version bump "
    "is required (cloudimport.format.records.FORMAT, docs/format.md), and the old version must stay readable"
)


def _keys() -> bytes:
    """Return every kind of key, a line each."""
    prefix = keys.build_prefix("beta", "2!1+local", records.TARGET)
    lines = [
        keys.SHELF,
        keys.STATUS,
        prefix,
        keys.build_pointer("beta", "2!1+local", records.TARGET),
        keys.environment_pointer(requirements_digest(records.LINES)),
        keys.environment_index(records.digest("index")),
    ]
    return "".join(line + "\n" for line in lines).encode()


#: File name to the bytes that this code makes now.
MADE: dict[str, Callable[[], bytes]] = {
    "content.json": lambda: records.alpha().encode(),
    "layout.json": lambda: records.alpha_layout().encode(),
    "static-layout.json": lambda: records.beta_layout().encode(),
    "build.json": lambda: records.build_pointer().encode(),
    "environment.json": lambda: records.environment_pointer().encode(),
    "index": records.index_bytes,
    "cloudimport.lock": lambda: records.lock().encode().encode(),
    "boot.lock": lambda: records.boot_lock().encode().encode(),
    "signed.lock": lambda: records.signed_lock().encode().encode(),
    "signed-build.json": lambda: records.signed_build_pointer().encode(),
    "signed-environment.json": lambda: records.signed_environment_pointer().encode(),
    "keys.txt": _keys,
    "canonical.json": lambda: canonical(
        {"ä": [1, 'é\u2028"\\\n', True, None], "a": {"z": 0, "b": 2**53 - 1}}
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_bytes_are_those_of_format_1(name: str) -> None:
    """What is written today is byte for byte what format version 1 says."""
    assert MADE[name]() == (GOLDEN / name).read_bytes(), BUMP.format(name=name)


def test_golden_records_are_read() -> None:
    """What shelves of format version 1 hold is read into the same values."""
    read = {name: (GOLDEN / name).read_bytes() for name in MADE}
    assert Content.decode(read["content.json"]) == records.alpha()
    assert Layout.decode(read["layout.json"]) == records.alpha_layout()
    assert Layout.decode(read["static-layout.json"]) == records.beta_layout()
    assert BuildPointer.decode(read["build.json"], "it") == records.build_pointer()
    assert EnvironmentPointer.decode(read["environment.json"], "it") == records.environment_pointer()
    assert Lock.decode(read["cloudimport.lock"].decode(), "it") == records.lock()
    assert Lock.decode(read["signed.lock"].decode(), "it") == records.signed_lock()
    assert BuildPointer.decode(read["signed-build.json"], "it") == records.signed_build_pointer()
    signed = EnvironmentPointer.decode(read["signed-environment.json"], "it")
    assert signed == records.signed_environment_pointer()


def test_golden_index_answers() -> None:
    """The index of format version 1 answers look-ups of modules, files, blocks, closures and prefetch."""
    index = EnvironmentIndex((GOLDEN / "index").read_bytes(), records.index_ref())
    section = index.section(0)
    found = index.find_module("alpha")
    assert found is not None
    assert found[1] == ("alpha", "p", 1, (0, 180, 80))
    assert [str(pin) for pin in index.pins] == ["alpha==1.2", "beta==2!1+local"]
    assert section.closure(2) == [(1, 0)]
    assert section.digest(2) == records.digest("x")
    assert section.block(1).exclusive
    assert not section.block(0).exclusive
    key = f"packages/alpha/1.1/{records.TARGET}/pack-{records.digest('p0')}"
    assert section.pieces(section.extents[0]) == [(section.block(2), 0, 60)]
    assert section.block(2)[:6] == (records.digest("b2"), key, 10, 60, 60, 0)
    assert [(s.build, number) for s, number in index.prefetch(0)] == [(0, 0), (1, 0)]
    assert section.imports(section.modules["alpha"]) == [(0, section.modules["alpha/_x"]), (1, 0)]
    assert index.section(1).imports(0) == []
    assert section.stamp(1) == 315532800 * 10**9 + section.stamp(1) % 10**9


def test_cached_block_file() -> None:
    """A block file of the local cache is the plain bytes, their CRC-32s, CIB2, CRC-32 of these, and size."""
    assert frame(b"plain bytes", "0a" * 32) == (GOLDEN / "block-trailer").read_bytes()


def test_identity_of_a_build() -> None:
    """The digest of a content, which names the build for ever, is the one it always was."""
    assert sha256(records.alpha().encode()) == (GOLDEN / "content.sha256").read_text().strip(), BUMP.format(
        name="a content's identity"
    )


def test_requirements_digest() -> None:
    """An environment is found under the digest it always had, however people write its lines."""
    lines = ["Beta[X] == 2!1.0+LOCAL; python_version>='3.10'", "ALPHA==1.2.0", "alpha==1.2"]
    found = requirements_digest(requirement.line for requirement in parse_lines(lines))
    assert found == requirements_digest(records.LINES)
    assert found == (GOLDEN / "requirements.sha256").read_text().strip(), BUMP.format(
        name="an environment's key"
    )


if __name__ == "__main__":  # writes what is not there yet, and changes nothing that is
    more: dict[str, Callable[[], bytes]] = {
        **MADE,
        "block-trailer": lambda: frame(b"plain bytes", "0a" * 32),
        "content.sha256": lambda: sha256(records.alpha().encode()).encode(),
        "requirements.sha256": lambda: requirements_digest(records.LINES).encode(),
    }
    GOLDEN.mkdir(exist_ok=True)
    for file, make in more.items():
        if not (GOLDEN / file).exists():
            (GOLDEN / file).write_bytes(make())
