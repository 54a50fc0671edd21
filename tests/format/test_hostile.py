"""Records from a hostile or broken shelf: a FormatError (a ConfigurationError for a lock), nothing else."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudimport.errors import CloudImportError, ConfigurationError, FormatError
from cloudimport.format import codec
from cloudimport.format.content import Content
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.layout import BuildPointer, Layout
from cloudimport.format.lock import Lock
from cloudimport.format.records import EnvironmentPointer, Ref, canonical, sha256
from tests.support import records

_QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))


def read_index(data: bytes) -> None:
    """Read an index as the runtime does, and ask it everything."""
    index = EnvironmentIndex(data, Ref(sha256(data), 0, len(data)))
    for number in range(len(index.builds)):
        section = index.section(number)
        for stem in [*section.modules, "no/such"]:
            index.find_module(stem)
        for file, path in enumerate(section.paths):
            index.find_file(path)
            section.pieces(section.extents[file])
            section.digest(file)
            section.stamp(file)
            for build, other in section.closure(file):
                assert index.section(build).paths[other]
        for stem in section.modules:
            module = section.module(stem)
            assert module is not None
            assert section.pieces(module.code) is not None
            assert section.paths[module.file]
            for build, row in section.imports(section.modules[stem]):
                if build < len(index.builds):
                    index.section(build).module_at(row)
        section.modules_in("")
        _check_keys(index, number)
        assert all(section.paths[file] for file in section.eager)
        for folder in section.folders():
            assert ".." not in folder.split("/")


def _check_keys(index: EnvironmentIndex, number: int) -> None:
    section = index.section(number)
    for other, block in index.prefetch(number):
        own = f"packages/{other.pin.name}/"
        assert other.block(block).key.startswith(own)
        other.native_of(block)
    for block in range(section.block_count):
        parts = section.block(block).key.split("/")
        assert parts[:2] == ["packages", section.pin.name]
        assert len(parts) == 5
        assert not {"", ".", ".."} & set(parts)


READERS: dict[str, tuple[bytes, Callable[[bytes], object], type[CloudImportError]]] = {
    "content": (records.alpha().encode(), Content.decode, FormatError),
    "layout": (records.alpha_layout().encode(), Layout.decode, FormatError),
    "build": (
        records.signed_build_pointer().encode(),
        lambda data: BuildPointer.decode(data, "it"),
        FormatError,
    ),
    "environment": (
        records.signed_environment_pointer().encode(),
        lambda data: EnvironmentPointer.decode(data, "it"),
        FormatError,
    ),
    "lock": (
        records.signed_lock().encode().encode(),
        lambda data: Lock.decode(data.decode("utf-8", "replace"), "it"),
        ConfigurationError,
    ),
    "index": (records.index_bytes(), read_index, FormatError),
}

#: What a hostile shelf may put where something else belongs.
ODD: list[Any] = [
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        7,
        2**31,
        2**53 - 1,
        2**53,
        2**63,
        2**64,
        10**30,
        -(10**30),
        0.0,
        0.5,
        1.0,
    ),
    *(
        float("inf"),
        float("nan"),
        "",
        "x",
        "1",
        "../x",
        "/etc/passwd",
        "a\nb",
        "a//b",
        "a\\b",
        "\ud800",
        "é" * 300,
    ),
    *("A" * 900, "__pycache__/x", "0" * 64, "0" * 63, "f" * 64, "\x00", "../../packages/beta", "%2e%2e/x"),
    *([], [[]], [None], [1, 2, 3], [-1], [10**30], ["x"], [True], [[0, 0, 1]], {}, {"x": 1}, {"": {}}, [{}]),
    records.TARGET,
    "lambda-python3.12-x86_64",
    "cp313t-manylinux_2_28_x86_64",
    [0, 10**12],
]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value inside a record."""
    yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from places(one, (*at, key))


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """Return a copy with ``new`` at a path; ``...`` removes what is there."""
    if not at:
        return None if new is ... else new
    out = dict(value) if isinstance(value, dict) else list(value)
    if len(at) == 1 and new is ...:
        del out[at[0]]
    else:
        out[at[0]] = changed(value[at[0]], at[1:], new)
    return out


def read(kind: str, data: bytes) -> None:
    """Read bytes that may be anything: fine, or the one error."""
    _, reader, error = READERS[kind]
    try:
        reader(data)
    except error as found:
        assert len(str(found)) < 2000
        assert "\n" not in str(found)


def parts(kind: str) -> list[Any]:
    """Return a record's JSON values: an index has a header and sections."""
    data = READERS[kind][0]
    if kind != "index":
        return [json.loads(data)]
    head, _, body = data.partition(b"\n")
    header = json.loads(head)
    spans = [build["section"] for build in header["builds"]]
    return [header, *(json.loads(body[at : at + length]) for at, length in spans)]


def joined(kind: str, values: list[Any]) -> bytes:
    """Return the bytes of a record from its JSON values; sections of an index are placed anew."""
    texts = [json.dumps(value, ensure_ascii=True).encode() for value in values]
    if kind != "index":
        return texts[0]
    header, at = values[0], 0
    try:
        for build, text in zip(header["builds"], texts[1:], strict=True):
            build["section"] = [at, len(text)]
            at += len(text)
    except (TypeError, KeyError, ValueError, AttributeError):
        pass  # the header is what was changed
    return json.dumps(header).encode() + b"\n" + b"".join(texts[1:])


@pytest.mark.parametrize("kind", READERS)
def test_each_value_of_a_record_replaced_or_removed(kind: str) -> None:
    """Whatever stands in whatever field of a record, reading it ends well or in one clear line."""
    values = parts(kind)
    for number, value in enumerate(values):
        for at in places(value):
            for new in [..., *ODD]:
                others = json.loads(json.dumps(values))
                others[number] = changed(others[number], at, new)
                read(kind, joined(kind, others))


def _matter(kind: str) -> list[tuple[tuple[Any, ...], Any]]:
    key, value = records.signer().key, "0" * 128
    bad_signatures: list[Any] = [
        None, {}, "x", [key], [[key]], [[key, value, value]], [[key, value[1:]]], [[key[1:], value]],
        [[key.upper(), value]], [[key, value[1:] + "x"]], [[key, 1]], [[key, value]] * 17,
    ]  # fmt: skip
    table: dict[str, list[tuple[tuple[Any, ...], Any]]] = {
        "content": [
            (("files", 1, 0), "../x"),
            (("files", 1, 0), "/x"),
            (("files", 1, 3), -1),
            (("files", 1, 3), True),
            (("files", 1, 3), "100"),
            (("files", 1, 3), 100.0),
            (("files", 1, 2), 1),
            (("files", 1, 1), "shell"),
            (("files", 1, 4), "0"),
            (("name",), "../alpha"),
            (("version",), "1.2.0"),
            (("target",), "lambda-python3.12-x86_64"),
            (("requires",), [1]),
        ],
        "layout": [
            (("packs", 0, 0), "../../beta/1"),
            (("packs", 0, 1), "../x"),
            (("packs", 0, 3), 1),
            (("blocks", 0, 0), 2),
            (("blocks", 0, 0), -1),
            (("blocks", 0, 1), 1950),
            (("blocks", 0, 2), 10**9),
            (("blocks", 0, 3), (4 << 20) + 1),
            (("blocks", 0, 4), 2),
            (("blocks", 0, 2), 0),
            (("files", 0), [2, 0, 61]),
            (("files", 0), [3, 0, 1]),
            (("files", 0), [-1, 0, 1]),
            (("files", 0), [2, 0]),
            (("files", 0), [2, True, 1]),
            (("lead",), 4),
            (("lead",), "1"),
            (("eager",), [6]),
            (("code",), {"../x": [0, 0, 1]}),
            (("magic",), "cb0d"),
        ],
        "build": [
            (("content", 0), "x"),
            (("content", 2), (256 << 20) + 1),
            (("name",), "Alpha"),
            *((("signatures",), bad) for bad in bad_signatures),
        ],
        "environment": [
            (("targets",), {"cp312": {}}),
            (("requirements",), [1]),
            (("requirements",), "x"),
            *((("targets", records.TARGET, "signatures"), bad) for bad in bad_signatures),
        ],
        "lock": [
            (("requirements",), ["alpha==1.3"]),
            (("shelf",), 1),
            (("requirements", 0), "\ud800"),
            (("roots",), []),
            (("roots",), ["00" * 32]),
            (("roots", 0), "01" + "00" * 31),
            (("roots", 0), key.upper()),
            *((("signatures",), bad) for bad in bad_signatures),
        ],
    }
    return table[kind]


@pytest.mark.parametrize(
    ("kind", "at", "new"),
    [
        (kind, at, new)
        for kind in ("content", "layout", "build", "environment", "lock")
        for at, new in _matter(kind)
    ],
)
def test_what_must_be_refused_is_refused(kind: str, at: tuple[Any, ...], new: Any) -> None:
    """Numbers out of range, wrong types, names that are no normal form and paths that leave are errors."""
    _, reader, error = READERS[kind]
    value = changed(parts(kind)[0], at, new)
    with pytest.raises(error):
        reader(json.dumps(value).encode())


INDEX_BAD: list[tuple[int, tuple[Any, ...], Any]] = [
    (0, ("builds", 0, "name"), "../beta"),
    (0, ("builds", 0, "name"), "Alpha"),
    (0, ("builds", 0, "version"), "1.2.0"),
    (0, ("builds", 0, "content"), "x"),
    (0, ("builds", 0, "magic"), 5),
    (0, ("names",), {"alpha": [2]}),
    (0, ("names",), {"alpha": [-1]}),
    (0, ("names",), {"alpha": ["x"]}),
    (0, ("files",), {"beta.py": [True]}),
    (0, ("folders",), {"alpha": [10**9]}),
    (0, ("target",), "lambda"),
    (1, ("paths",), "../a\nb\nc\nd\ne\nf"),
    (1, ("paths",), "a/../../b\nb\nc\nd\ne\nf"),
    (1, ("paths",), "/etc/x\nb\nc\nd\ne\nf"),
    (1, ("paths",), "a\na\nc\nd\ne\nf"),
    (1, ("paths",), "a\na/b\nc\nd\ne\nf"),
    (1, ("paths",), "a\\b\nb\nc\nd\ne\nf"),
    (1, ("paths",), "a\x07\nb\nc\nd\ne\nf"),
    (1, ("paths",), "a/__pycache__/b\nb\nc\nd\ne\nf"),
    (1, ("paths",), "x" * 256 + "\nb\nc\nd\ne\nf"),
    (1, ("kinds",), "mznxdb"),
    (1, ("sizes", 2), 3001),
    (1, ("extents", 0), [2, 0, 61]),
    (1, ("extents", 0), [9, 0, 60]),
    (1, ("extents", 0), [0, 0, 10**15]),
    (1, ("packs", 0, 0), "../../beta/2"),
    (1, ("packs", 0, 1), "x"),
    (1, ("packs", 0, 3), 50),
    (1, ("blocks", 0), 5),
    (1, ("blocks", 3), 1 << 30),
    (1, ("eager",), [6]),
    (1, ("eager",), [-1]),
    (1, ("prefetch",), [[0, [0, 10**15]]][:0] + [[9, [0, 1]]]),
    (1, ("closure",), {"2": [1, 9]}),
    (1, ("closure",), {"2": [9, 0]}),
    (1, ("closure",), {"2": [1]}),
    (1, ("closure",), {"2": [-1, 0]}),
    (1, ("module_kinds",), "zz"),
    (1, ("module_files", 0), 6),
    (1, ("code", 0), [0, 0, 1 << 40]),
    (1, ("native_digests",), {}),
    (1, ("imports",), "0"),
    (1, ("imports",), "-1\n\n\n"),
    (1, ("imports",), ["0"]),
]


@pytest.mark.parametrize(("part", "at", "new"), INDEX_BAD)
def test_an_index_that_must_be_refused_is_refused(part: int, at: tuple[Any, ...], new: Any) -> None:
    """An index cannot name another package's pack, leave the tree, or count beyond what it has."""
    values = parts("index")
    values[part] = changed(values[part], at, new)
    with pytest.raises(FormatError):
        read_index(joined("index", values))


@pytest.mark.parametrize("section", ["[" * 200_000, "{" * 3, "[]", "null", "1" * 10_000, "\ufeff{}"])
def test_a_section_that_is_no_record(section: str) -> None:
    """A section that nests too deep, or is no object, is an error of the format on its first use."""
    values = parts("index")
    head, body = json.loads(json.dumps(values[0])), section.encode()
    head["builds"][0]["section"] = [0, len(body)]
    head["builds"][1]["section"] = [0, 0]
    index = EnvironmentIndex(json.dumps(head).encode() + b"\n" + body, Ref("0" * 64, 0, 0))
    with pytest.raises(FormatError):
        index.find_module("alpha")


@pytest.mark.parametrize("place", [[0, 10**9], [10**9, 1], [-1, 5]])
def test_a_section_beyond_the_end_is_refused_at_once(place: list[int]) -> None:
    """An index that was cut is refused when it is opened, not in the middle of an import."""
    values = parts("index")
    values[0]["builds"][0]["section"] = place
    with pytest.raises(FormatError):
        EnvironmentIndex(json.dumps(values[0]).encode() + b"\n{}", Ref("0" * 64, 0, 0))


def test_an_index_never_prefetches_more_than_there_is() -> None:
    """A run of a million million blocks ends at the last block there is."""
    values = parts("index")
    values[1]["prefetch"] = [[0, [1, 10**12]]]
    index = EnvironmentIndex(joined("index", values), Ref("0" * 64, 0, 0))
    assert [number for _, number in index.prefetch(0)] == [1, 2]


@pytest.mark.parametrize("line", ["9" * 30, "9:9 1:99", "::1", "1:", ": :", "3:0", "0 0 0"])
def test_what_modules_import_is_a_hint(line: str) -> None:
    """Rows and builds that are not there are no error: whoever looks finds no module."""
    values = parts("index")
    rows = len(values[1]["modules"].split("\n"))
    values[1]["imports"] = line + "\n" * (rows - 1)
    index = EnvironmentIndex(joined("index", values), Ref("0" * 64, 0, 0))
    found = [(build, row) for build, row in index.section(0).imports(0) if build < len(index.builds)]
    first = index.section(0).module_at(0)
    assert all(index.section(build).module_at(row) in (None, first) for build, row in found)


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
@_QUIET
def test_bytes_changed_at_random(kind: str, data: st.DataObject) -> None:
    """A record with bytes overwritten, cut, doubled or put in reads well or ends in one clear line."""
    raw = bytearray(READERS[kind][0])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        how = data.draw(st.sampled_from(("set", "cut", "put", "repeat")))
        if how == "set" and at < len(raw):
            raw[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del raw[at : at + data.draw(st.integers(0, 50))]
        elif how == "put":
            raw[at:at] = data.draw(
                st.sampled_from([b"0", b"9" * 30, b"-", b"]", b"[", b"\n", b"\xff", b"\\ud800"])
            )
        else:
            raw[at:at] = raw[max(0, at - 20) : at]
    read(kind, bytes(raw))


_JSON = st.recursive(
    st.sampled_from([odd for odd in ODD if not isinstance(odd, list | dict)]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
@_QUIET
def test_values_changed_at_random(kind: str, data: st.DataObject) -> None:
    """A record with whole values exchanged, several at a time, reads well or ends in one clear line."""
    values = parts(kind)
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(values) - 1))
        at = data.draw(st.sampled_from(sorted(places(values[number]), key=repr)))
        values[number] = changed(values[number], at, data.draw(_JSON))
    read(kind, joined(kind, values))


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, "1" * 10_000, "", "null", "[]", '"x"', "\ufeff{}"]
)
def test_no_record_at_all(kind: str, text: str) -> None:
    """What nests too deep, is too long a number or no object is an error of the format."""
    _, reader, error = READERS[kind]
    with pytest.raises(error):
        reader(text.encode())
    with pytest.raises(error):
        reader(text.encode() + b"\n")


@pytest.mark.parametrize("kind", READERS)
def test_a_newer_format_says_upgrade(kind: str) -> None:
    """A record of a newer format is refused in one line that says what to do."""
    _, reader, error = READERS[kind]
    values = parts(kind)
    values[0]["format"] = 2
    with pytest.raises(error, match=r"format 2.* upgrade cloudimport"):
        reader(joined(kind, values))


@pytest.mark.parametrize("kind", READERS)
def test_unknown_keys_are_ignored(kind: str) -> None:
    """Keys that this version does not know change nothing: later versions may add them."""
    values = parts(kind)
    for value in values:
        value["future"] = {"anything": [1, {}]}
    READERS[kind][1](joined(kind, values))


def test_wrong_kind_is_refused() -> None:
    """A record of one kind does not pass for another."""
    with pytest.raises(FormatError, match="is not a cloudimport layout record"):
        Layout.decode(records.alpha().encode())


# Decompression


def _peak(run: Callable[[], object]) -> int:
    """Return by how many bytes the peak of this process's memory grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10


def _in_pieces(data: bytes, size: int) -> bytes:
    return b"".join(codec.pieces(codec.ZSTD, data, size))


@pytest.fixture(params=[codec.decompress, _in_pieces], ids=["whole", "in pieces"])
def decompress(request: pytest.FixtureRequest) -> Callable[[bytes, int], bytes]:
    """Both ways to the plain bytes of a frame."""
    way: Callable[[bytes, int], bytes] = request.param
    return way


def test_a_decompression_bomb_is_refused_in_bounded_memory(decompress: Callable[[bytes, int], bytes]) -> None:
    """A small frame that would make a gigabyte is an error after as many bytes as it should have."""
    import zstandard

    bomb = zstandard.ZstdCompressor(level=3, write_content_size=False).compressobj()
    data = b"".join(bomb.compress(bytes(1 << 24)) for _ in range(64)) + bomb.flush()
    assert len(data) < 200_000

    def refused() -> None:
        with pytest.raises(FormatError):
            decompress(data, 1 << 20)

    assert _peak(refused) < 160 << 20


@pytest.mark.parametrize("size", [0, 1, 9, 11, 1 << 20, -1])
def test_a_frame_of_another_size_is_refused(decompress: Callable[[bytes, int], bytes], size: int) -> None:
    """A frame that holds fewer or more bytes than the reference says is an error."""
    import zstandard

    with pytest.raises(FormatError):
        decompress(zstandard.compress(b"0123456789"), size)


@pytest.mark.parametrize("surplus", [b"\0", b"0123456789" * 100])
def test_trailing_bytes_are_refused(decompress: Callable[[bytes, int], bytes], surplus: bytes) -> None:
    """Bytes after the frame, another frame among them, are an error."""
    import zstandard

    for more in (surplus, zstandard.compress(surplus), zstandard.compress(b"")):
        with pytest.raises(FormatError):
            decompress(zstandard.compress(b"0123456789") + more, 10)


def test_a_frame_that_is_cut_off_is_refused(decompress: Callable[[bytes, int], bytes]) -> None:
    """Wherever a frame ends too soon."""
    import zstandard

    frame = zstandard.compress(bytes(range(256)) * 3000)
    for end in (0, 1, 4, len(frame) // 2, len(frame) - 1):
        with pytest.raises(FormatError):
            decompress(frame[:end], 256 * 3000)


@pytest.mark.parametrize("size", [1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 1 << 20])
def test_pieces_are_the_frame(decompress: Callable[[bytes, int], bytes], size: int) -> None:
    """Both ways give the same bytes, whatever their number."""
    import zstandard

    data = os.urandom(size // 2) + bytes(size - size // 2)
    assert decompress(zstandard.compress(data), size) == data


def test_an_empty_frame_is_read(decompress: Callable[[bytes, int], bytes]) -> None:
    """No bytes at all are a frame too."""
    import zstandard

    assert decompress(zstandard.compress(b""), 0) == b""


@given(data=st.binary(max_size=300), size=st.integers(0, 2000))
@_QUIET
def test_garbage_is_no_frame(data: bytes, size: int) -> None:
    """Whatever bytes are taken for a frame, the answer has the size or is a FormatError."""
    for raw in (data, b"\x28\xb5\x2f\xfd" + data):
        for way in (codec.decompress, _in_pieces):
            try:
                assert len(way(raw, size)) == size
            except FormatError:
                pass


def test_canonical_json_is_what_the_format_says() -> None:
    """Keys are sorted, there is no space, and what is not ASCII is written as itself."""
    assert canonical({"b": "ü", "a": [1, True]}) == '{"a":[1,true],"b":"ü"}'.encode()
