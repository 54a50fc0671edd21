"""Rows: what a package says that it is, and what it puts where others look."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.hostile.row import CONTAINED, REFUSED, Place, Row, wheel
from tests.support.wheels import build_wheel

HEAD = "Metadata-Version: 2.1\nName: NAME\nVersion: 1.0\n"
#: What the interpreter's own start would run, if it were told of the folder.
STARTS = "import os; open('/tmp/@MARK@', 'w').close(); open('@HOME@/@MARK@', 'w').close()\n"


def renamed(wheel_name: str) -> Callable[[Place, str], list[str]]:
    """Return how to make a wheel of another package whose file has the row's name."""

    def make(place: Place, name: str) -> list[str]:
        path = build_wheel(place.folder, wheel_name, "1.0", {"x.py": ""})
        path.rename(place.folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl")
        return [f"{name}==1.0"]

    return make


def beside_innocent(**files: str) -> Callable[[Place, str], list[str]]:
    """Return how to make a wheel with data files that goes into one environment with the innocent package."""

    def make(place: Place, name: str) -> list[str]:
        spelt = name.replace("-", "_")
        members = {f"{spelt}-1.0.data/purelib/{path}": text for path, text in files.items()}
        build_wheel(place.folder, name, "1.0", {f"{spelt}.py": "", **members})
        return [f"{name}==1.0", "innocent==1.0"]

    return make


def two_scripts(place: Place, name: str) -> list[str]:
    """Make two wheels with the same script, and pin both."""
    for each, text in ((name, "print(1)\n"), (f"{name}-other", "print(2)\n")):
        folder = f"{each.replace('-', '_')}-1.0.data/scripts"
        build_wheel(
            place.folder, each, "1.0", {f"{folder}/pip": "#!python\n" + text, f"{folder}/python": text}
        )
    return [f"{name}==1.0", f"{name}-other==1.0"]


def file_in_the_way(place: Place, name: str) -> list[str]:
    """Make a wheel with a file where the innocent package has a folder, and pin both."""
    build_wheel(place.folder, name, "1.0", {"innocent": "not a folder\n"})
    return [f"{name}==1.0", "innocent==1.0"]


def damaged_elf(place: Place, name: str) -> list[str]:
    """Make a wheel with files that begin as libraries do and then lie."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    files: dict[str, str | bytes] = {"damaged_elf.py": "", "cut.so": head}
    # 65,535 program headers that are not there, each of 56 bytes, and as many sections.
    files["headers.so"] = head + (
        b"\x03\0\x3e\0\x01\0\0\0" + b"\xff" * 24 + b"\xff\xff\xff\xff@\0\x38\0" + b"\xff" * 8
    )
    files["noise.so"] = head + bytes(range(256)) * 512
    build_wheel(place.folder, name, "1.0", files)
    return [f"{name}==1.0"]


ROWS = (
    Row(
        "file-name",
        "a file that is called as this package and is another",
        REFUSED,
        (
            "file-name==1: …invalid wheel, .dist-info directory 'other_package-1.0.dist-info' does not start with",
        ),
        renamed("other-package"),
    ),
    Row(
        "other-name",
        "METADATA that says another name",
        REFUSED,
        ("other-name==1: the wheel's METADATA has another name: 'requests'",),
        wheel({"NAME.py": ""}, metadata=HEAD.replace("NAME", "requests")),
    ),
    Row(
        "other-version",
        "METADATA that says another version",
        REFUSED,
        ("other-version==1: the wheel's METADATA has another version: '2.0'",),
        wheel({"NAME.py": ""}, metadata=HEAD.replace("1.0", "2.0")),
    ),
    Row(
        "two-infos",
        "METADATA of another package beside its own, by way of `.data`",
        REFUSED,
        (
            "two-infos==1 …: the wheel installs innocent-1.0.dist-info, two_infos-1.0.dist-info: only one can be its own",
        ),
        beside_innocent(**{"innocent-1.0.dist-info/METADATA": HEAD.replace("NAME", "innocent")}),
    ),
    Row(
        "entry-points-of-others",
        "only entry points in the dist-info folder of another package",
        REFUSED,
        ("…installs entry_points_of_others-1.0.dist-info, innocent-1.0.DIST-INFO: only one can be its own",),
        beside_innocent(**{"innocent-1.0.DIST-INFO/entry_points.txt": "[console_scripts]\nx = os:abort\n"}),
    ),
    Row(
        "egg-info",
        "an egg-info of another package",
        CONTAINED,
        ("note: egg-info==1: innocent-9.0.egg-info: installs metadata beside its own",),
        beside_innocent(**{"innocent-9.0.egg-info/PKG-INFO": HEAD.replace("NAME", "innocent")}),
        then="as under pip, and said",
    ),
    Row(
        "aaa-same-file",
        "a module of another package, by way of `.data`, which would win by its name",
        CONTAINED,
        (
            "note: innocent/deep.py is in aaa-same-file and, with other bytes, in innocent: aaa-same-file's is used",
        ),
        beside_innocent(**{"innocent/deep.py": "x = 2\n"}),
        then="said; the other package's build is not touched",
    ),
    Row(
        "same-script",
        "`python` and `pip` as scripts, in two packages",
        CONTAINED,
        (
            "note: bin/pip is in same-script and, with other bytes, in same-script-other: same-script's is used",
        ),
        two_scripts,
        "two wheels",
        then="said; `bin` is on no path",
    ),
    Row(
        "file-in-the-way",
        "a file where another package has a folder",
        REFUSED,
        ("innocent is a file in file-in-the-way and a folder in innocent: they cannot go together",),
        file_in_the_way,
    ),
    Row(
        "pth",
        "`.pth` files with code, one behind a mark of byte order, one behind a line separator",
        CONTAINED,
        (
            "note: pth==1: a.pth: executable .pth, kept as data, never executed",
            "note: pth==1: bom.pth: executable .pth, kept as data, never executed",
            "note: pth==1: line.pth: executable .pth, kept as data, never executed",
        ),
        wheel({"pth.py": "", "a.pth": STARTS, "bom.pth": "\ufeff" + STARTS, "line.pth": "#\u2028" + STARTS}),
        then="data",
    ),
    Row(
        "startup",
        "`sitecustomize` and `usercustomize`",
        CONTAINED,
        (
            "note: startup==1: sitecustomize.py: under pip every start of an interpreter would run it",
            "note: startup==1: usercustomize.py: under pip every start of an interpreter would run it",
        ),
        wheel({"sitecustomize.py": STARTS, "usercustomize.py": STARTS}),
        then="data; it is run in the trace only",
    ),
    Row(
        "standard",
        "modules called as those of the standard library",
        CONTAINED,
        (
            "note: standard==1: json: is called as a module of the standard library, which wins",
            "note: standard==1: os.py: is called as a module of the standard library, which wins",
        ),
        wheel({"json/__init__.py": STARTS, "os.py": STARTS, "signal.py": STARTS}),
        then="data; not imported, by the tools either",
    ),
    Row(
        "look-alike",
        "a package called as another one in other letters",
        CONTAINED,
        (),
        wheel({"innоcent/__init__.py": "", "ｏs.py": STARTS}),
        then="a folder of another name",
    ),
    Row(
        "terminal",
        "METADATA that steers a terminal",
        CONTAINED,
        ("note: terminal==1: Requires-Python '>=3…31m' cannot be read",),
        wheel(
            {"NAME.py": ""},
            metadata=HEAD + "Summary: \x1b]0;owned\x07\nRequires-Python: >=3\x9b31m\n"
            "Requires-Dist: gone ; platform_machine == '\x1b[31m'\n",
        ),
        then="shown escaped",
    ),
    Row(
        "needs-url",
        "a requirement that is an address",
        REFUSED,
        ("elsewhere is needed by needs-url==1 and is not in the list",),
        wheel({"NAME.py": ""}, requires=["elsewhere @ http://127.0.0.1:@PORT@/x.whl"]),
    ),
    Row(
        "deep-marker",
        "a requirement with parentheses without end",
        REFUSED,
        ("deep-marker==1: pip failed: RecursionError",),
        wheel({"NAME.py": ""}, requires=["a ; " + "(" * 50_000]),
    ),
    Row(
        "long-requirement",
        "a requirement with a name, an extra and a version of 40,000 characters",
        REFUSED,
        ("is needed by long-requirement==1 and is not in the list",),
        wheel({"NAME.py": ""}, requires=["a" * 40_000 + "[" + "b" * 40_000 + "]>=" + "1." * 20_000 + "0"]),
    ),
    Row(
        "long-number",
        "a requirement with a number of 50,000 digits",
        REFUSED,
        ("a (>=999…...) is needed by long-number==1 and is not in the list",),
        wheel({"NAME.py": ""}, requires=["a>=" + "9" * 50_000]),
    ),
    Row(
        "long-metadata",
        "a METADATA of 8 MB in one field, and 100,000 requirements",
        CONTAINED,
        (),
        wheel(
            {"NAME.py": ""},
            metadata=HEAD
            + "Summary: "
            + "x " * (4 << 20)
            + "\n"
            + "Requires-Dist: no ; python_version < '3'\n" * 100_000,
        ),
        then="published",
    ),
    Row(
        "long-name-field",
        "a METADATA whose name has a million letters",
        REFUSED,
        ("long-name-field==1: the wheel's METADATA has another name: 'aaaa…",),
        wheel({"NAME.py": ""}, metadata=HEAD.replace("NAME", "a" * 1_000_000)),
    ),
    Row(
        "scripts",
        "entry points that are code or lead out of the folder",
        REFUSED,
        ("scripts==1 …refused: the name '../../x' in the wheel leaves the folder",),
        wheel({"NAME.py": ""}, entry_points="[console_scripts]\n../../x = os:abort\n"),
    ),
    Row(
        "script-code",
        "an entry point with code instead of a function",
        REFUSED,
        ("script-code==1 …refused: entry_points.txt is not valid",),
        wheel({"NAME.py": ""}, entry_points="[console_scripts]\nx = os:system('id')\n"),
    ),
    Row(
        "damaged-elf",
        "files that begin as libraries do, and lie",
        CONTAINED,
        (
            "note: damaged-elf==1: cut.so: the ELF file is damaged",
            "note: damaged-elf==1: headers.so: the ELF file is damaged",
        ),
        damaged_elf,
        then="data",
    ),
    Row(
        "compiler",
        "sources that crash, exhaust or delay the compiler",
        CONTAINED,
        (
            "note: compiler==1: bomb.py: does not compile",
            "note: compiler==1: deep.py: does not compile",
            "note: compiler==1: zero.py: does not compile",
        ),
        wheel(
            {
                "compiler.py": "",
                "bomb.py": "x = -" + "~" * 200_000 + "1\n",
                "deep.py": "(" * 5000,
                "zero.py": b"x\0",
                "codec.py": "# coding: \x1b[31m\nx = 1\n",
            }
        ),
        then="source without bytecode",
    ),
    Row(
        "slow-compiler",
        "a source that the compiler is not done with in time",
        REFUSED,
        ("slow-compiler==1: took longer than 3 s while it was installed (--install-wall-time)",),
        wheel({"slow.py": "x = [" + "1," * 12_000_000 + "]\n"}),
        limits={"install-wall-time": "3s"},
    ),
)
