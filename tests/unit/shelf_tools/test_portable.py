"""Which native code that was built here a target takes."""

from __future__ import annotations

import pytest

from cloudimport.ids import Target
from shelf_tools.portable import _offered


@pytest.mark.parametrize(
    ("version", "oldest"),
    [
        ("GLIBC_2.2.5", "2_17"),
        ("GLIBC_2.17", "2_17"),
        ("GLIBC_2.18", "2_26"),
        ("GLIBC_2.28", "2_28"),
        ("GLIBC_2.34", "2_34"),
        ("GLIBCXX_3.4.19", "2_17"),
        ("GLIBCXX_3.4.20", "2_26"),
        ("GLIBCXX_3.4.25", "2_28"),
        ("GLIBCXX_3.4.29", "2_34"),
        ("CXXABI_1.3.13", "2_34"),
        ("GCC_4.2.0", "2_17"),
        ("OPENSSL_3.0.0", "2_17"),  # of a library that is in the wheel
        ("GLIBC_2.35", ""),
        ("GLIBC_2.36", ""),
        ("GLIBCXX_3.4.30", ""),
        ("GCC_12.0.0", ""),
        ("GLIBC_ABI_DT_RELR", ""),
        ("GLIBC_PRIVATE", ""),
    ],
)
def test_versions_by_target(version: str, oldest: str) -> None:
    """A version is offered by the target that it came with and by all newer ones; some by none."""
    names = ["2_17", "2_26", "2_28", "2_34"]
    taking = [n for n in names if _offered(version, Target.parse(f"cp312-manylinux_{n}_x86_64"))]
    assert taking == (names[names.index(oldest) :] if oldest else [])
