"""A fair sample of the corpus, compared between a shelf and pip; `make conformance` runs all of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.conformance.behaviours import PACKS, TITLES
from tests.conformance.environments import Prepared, prepare
from tests.conformance.exceptions import read_exceptions
from tests.conformance.groups import SAMPLE, VERSIONS, pins_file, read_groups, read_pins
from tests.conformance.report import Row, write_report
from tests.conformance.running import (
    Outcome,
    Place,
    Seen,
    compare,
    differing_lines,
    run_both,
    run_side,
    settle,
)
from tests.conformance.subjects import Subject, read_subjects
from tests.support.runtimes import running_version

#: What the fast tests compare, of the group that is named so: each for what packages.toml says.
CHOSEN = "certifi googleapis-common-protos jinja2 lxml markupsafe numpy pytz tabulate".split()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The sample for the running interpreter, from pip and on a shelf in a folder."""
    return prepare(tmp_path_factory.mktemp("conformance"), running_version(), SAMPLE)


@pytest.fixture(scope="module")
def subjects(prepared: Prepared) -> dict[str, Subject]:
    """The sample's distributions by name."""
    return {subject.name: subject for subject in read_subjects(prepared.plain, prepared.group)}


@pytest.fixture(scope="module")
def places(prepared: Prepared) -> SimpleQueue[Place]:
    """Two places to run in."""
    queue: SimpleQueue[Place] = SimpleQueue()
    for number in range(2):
        queue.put(Place(prepared, number))
    return queue


@pytest.fixture
def place(places: SimpleQueue[Place]) -> Iterator[Place]:
    """One of the places."""
    taken = places.get()
    yield taken
    places.put(taken)


@pytest.mark.network
@pytest.mark.parametrize("name", CHOSEN)
def test_same_as_pip(name: str, subjects: dict[str, Subject], places: SimpleQueue[Place]) -> None:
    """A distribution shows the same from the shelf as from pip's folder, in each behaviour."""
    excepted = read_exceptions()

    def run(names: tuple[str, ...]) -> dict[str, Outcome]:
        place = places.get()
        try:
            return run_both(place, subjects[name], names)
        finally:
            places.put(place)

    with ThreadPoolExecutor(2) as pool:
        packs = [names for applies, names in PACKS.values() if applies(subjects[name])]
        outcomes = {key: value for found in pool.map(run, packs) for key, value in found.items()}
    for behaviour, outcome in outcomes.items():
        excepted.apply(name, behaviour, outcome)
        told = "\n".join(differing_lines(outcome))
        assert outcome.status not in ("differs", "broken"), f"{behaviour}: {outcome.broken}\n{told}"
    assert outcomes["modules.walk"].status in ("pass", "same failure")
    assert sum(outcome.items for outcome in outcomes.values()) > 40


@pytest.mark.network
def test_a_changed_file_is_seen(prepared: Prepared, subjects: dict[str, Subject], place: Place) -> None:
    """If pip's folder had another file, another line and another exception, each behaviour would say so."""
    file = place.folder / "plain" / "tabulate" / "__init__.py"
    text = file.read_text()
    file.unlink()  # it is a link to the file of all places
    try:
        file.write_text(f"# another first line\n{text}\nadded = 1\n")
        names = ("modules.walk", "source.sources", "files.status", "files.opening", "source.frames")
        outcomes = run_both(place, subjects["tabulate"], names)
    finally:
        file.unlink()
        shutil.copy2(prepared.plain / "tabulate" / "__init__.py", file)
    assert {outcome.status for outcome in outcomes.values()} == {"differs"}


@pytest.mark.network
def test_what_ends_the_interpreter_is_a_result(subjects: dict[str, Subject], place: Place) -> None:
    """A module that ends the interpreter is a result of its own, and the others are seen all the same."""
    folder = place.folder / "plain" / "tabulate"
    files = {"a_exits.py": "raise SystemExit(3)\n", "b_dies.py": "import os\nos._exit(7)\n", "c_fine.py": ""}
    try:
        for name, text in files.items():
            (folder / name).write_text(text)
        seen = run_side("plain", place, subjects["tabulate"], ["modules.walk", "modules.repeated"])
    finally:
        for name in files:
            (folder / name).unlink()
    walked = seen.values["modules.walk"]
    exits = walked["tabulate.a_exits"]
    assert isinstance(exits, dict)
    assert exits["raised"]["type"] == "builtins.SystemExit"
    assert seen.values["modules.ending"] == {"tabulate.b_dies": {"ended": 7}}
    assert "tabulate.c_fine" in walked
    assert seen.values["modules.repeated"]


def test_comparing() -> None:
    """Different values differ, the same exception is the same failure, a broken probe is none of these."""
    raised = {"raised": {"type": "builtins.OSError", "text": "no"}}
    plain = Seen({"a": {"x": 1, "y": raised}, "b": {"x": raised}, "c": {"x": "at 0x7f1234567890"}, "d": {}})
    shelf = Seen(
        {"a": {"x": 1, "y": 2}, "b": {"x": raised}, "c": {"x": "at 0x7fabcdef0123"}}, {"e": "broken"}
    )
    outcomes = compare(plain, shelf)
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "a": "differs",
        "b": "same failure",
        "c": "pass",
        "d": "not applicable",
        "e": "broken",
    }
    assert outcomes["a"].differing == {"y": [raised, 2]}
    gone = compare(Seen({"a": {"x": 1}}), Seen({"a": {}}))
    assert gone["a"].status == "differs"


def test_exceptions_name_their_tests() -> None:
    """Each exception names a behaviour that there is, and a test that is there."""
    for entry in read_exceptions().entries:
        assert entry["behaviour"] in TITLES


def test_behaviours_have_titles() -> None:
    """Each behaviour that runs has a column in the report."""
    run = {name for _, names in PACKS.values() for name in names}
    assert run <= set(TITLES)
    assert set(TITLES) - run == {"modules.ending", "metadata.environment"}


def test_corpus() -> None:
    """Every group is pinned for every Python, with more than a hundred distributions in all of them."""
    for version in VERSIONS:
        pinned = set()
        for group in read_groups().values():
            pins = read_pins(pins_file(group.name, version))
            assert {name for name in group.wanted if name not in pins} == set()
            pinned |= set(pins)
        assert len(pinned) >= 100


def test_report(tmp_path: Path) -> None:
    """The report counts what differs, and shows it."""
    fine, bad = Outcome(items=3, failed=1), Outcome(items=2, differing={"x": [1, 2]})
    rows = [
        Row("3.11", "sample", "demo", "1.0", "modules.walk", fine),
        Row("3.11", "sample", "demo", "1.0", "files.listing", bad),
    ]
    write_report(rows, read_exceptions(), tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "| 3.11 | 1 | 2 | 0 | 1 | 0 | 1 |" in text
    assert "Items compared: 5; 1 of them fail alike, 1 differ" in text
    assert "| demo 1.0 | = |" in text
    assert json.dumps("/") not in text


def test_what_pip_does_not_agree_with_itself_on() -> None:
    """What another run under pip shows as the shelf did, or as neither did, is no difference."""
    failed = {"raised": "ImportError"}
    values: dict[str, list[object]] = {
        "as the shelf": [failed, 1],
        "as neither": [1, 2],
        "as before": [1, 2],
        "fails on the shelf only": [1, failed],
    }
    outcome = Outcome(differing=dict(values))
    settle(outcome, {"as the shelf": 1, "as neither": 3, "as before": 1, "fails on the shelf only": 2})
    assert outcome.differing == {name: values[name] for name in ("as before", "fails on the shelf only")}
    assert outcome.unsteady == 2
