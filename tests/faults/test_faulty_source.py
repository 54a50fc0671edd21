"""The k-th read of a folder shelf goes wrong, for every k and every fault, under the whole stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudimport.errors import AbsentError, CloudImportError, DeniedError, UnreachableError
from cloudimport.format.records import Ref
from tests.support.faulty import Faulty
from tests.support.shelves import MadeShelf
from tests.support.stacks import opened

FAULTS: dict[str, BaseException | str] = {
    "absent": AbsentError("gone", key="k"),
    "denied": DeniedError("no", key="k"),
    "unreachable": UnreachableError("broke off", key="k"),
    "short": "short",
    "wrong": "wrong",
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeShelf, Ref, dict[str, str]]:
    """A shelf of three packages with several blocks each, its index, and what a sound stack reads."""
    folder = tmp_path_factory.mktemp("shelf")
    made = MadeShelf(folder)
    for name in ("alpha", "beta", "gamma"):
        files: dict[str, str | bytes] = {f"{name}/{at}.py": f"X = '{name}{at}'\n" * 90 for at in range(3)}
        files |= {f"{name}/__init__.py": "", f"{name}/_x.so": b"\x7fELF" + name.encode() * 40_000}
        files[f"{name}/large.bin"] = name.encode() * 90_000
        made.add(name, "1.0", files)
    ref = made.environment()
    with opened(made.url, ref, folder / "sound") as stack:
        return made, ref, stack.everything()


@pytest.mark.parametrize("times", [1, 2, 1000])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_kth_read_goes_wrong(
    shelf: tuple[MadeShelf, Ref, dict[str, str]], tmp_path: Path, fault: str, times: int
) -> None:
    """Success with the right bytes, or a typed ImportError; and the next try in the same process succeeds."""
    made, ref, expected = shelf
    k, reads = 1, 1
    while k <= reads:
        faulty: list[Faulty] = []

        def wrap(source, k: int = k, faulty: list[Faulty] = faulty):  # type: ignore[no-untyped-def]
            faulty.append(Faulty(source, k, FAULTS[fault], times))
            return faulty[0]

        try:
            with opened(made.url, ref, tmp_path / str(k), wrap=wrap) as stack:
                reads = _try(stack, faulty, expected)
        except CloudImportError as error:
            assert k == 1 or (times > 1 and k == 2), "opening reads the index only, twice if it is damaged"
            assert isinstance(error, ImportError)
            reads = 5
        k += 1
    assert k > 5


def _try(stack, faulty: list[Faulty], expected: dict[str, str]) -> int:  # type: ignore[no-untyped-def]
    try:
        assert stack.everything() == expected
    except CloudImportError as error:
        assert isinstance(error, ImportError)
        assert not isinstance(error, ModuleNotFoundError)
        assert error.package.partition("==")[0] in ("alpha", "beta", "gamma")
        faulty[0]._bad = range(0)
        assert stack.everything() == expected
    return faulty[0].reads
