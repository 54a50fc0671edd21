"""The bench of publishing: what it says of its figures."""

from __future__ import annotations

from shelf_tools.pins import read_pins
from tests.bench import publishing


def run(wall: float, cpu: float, **stages: float) -> dict[str, object]:
    """Return a run's figures."""
    return {"wall": wall, "cpu": cpu, "stages": stages}


def test_page() -> None:
    """Medians, how many cores were busy, the speed-up over one worker, and where the time went."""
    runs = {
        "one worker": [
            run(30, 27, trace=20.0, pack=9.0),
            run(10, 9, trace=5.0),
            run(20, 18, trace=12.0, pack=6.0),
        ],
        "processes": [run(10, 19, trace=13.0, pack=6.0, trees=0.5)],
        "pip": [run(5, 4)],
    }
    what = {"pins": 3, "bytes": 2_000_000, "cores": 2, "python": "3.12.1", "sandbox": "none", "rounds": 3}
    lines = publishing.render({**what, "runs": runs}).splitlines()
    assert lines[2].startswith("3 pins, 2 MB of wheels in a local folder; 2 cores")
    assert "| one worker | 20.0 | 18.0 | 0.90 | 1.00 |" in lines
    assert "| processes | 10.0 | 19.0 | 1.90 | 2.00 |" in lines
    assert "| pip | 5.0 | 4.0 | 0.80 | 4.00 |" in lines
    assert lines[-4:] == [
        "| | trace | pack | trees |",
        "|---|---|---|---|",
        "| one worker | 12.0 | 6.0 | 0.0 |",
        "| processes | 13.0 | 6.0 | 0.5 |",
    ]


def test_a_hundred() -> None:
    """The list has a hundred exact pins."""
    listed = read_pins(publishing.PINS.parents[1] / "3.11" / "hundred.txt")
    assert len({requirement.pin for requirement in listed}) == 100
