"""Steps that take one another's results, run at once as far as they can be. Knows nothing of functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from cloudimport.errors import CloudImportError


class Outcome(NamedTuple):
    """What became of the steps: results, errors, and for each that was not begun the one it waited for."""

    results: Mapping[str, Any]
    errors: Mapping[str, CloudImportError]
    skipped: Mapping[str, str]


def run_steps(
    needs: Mapping[str, Collection[str]],
    step: Callable[[str, Mapping[str, Any]], Any],
    stop: Callable[[], None],
    jobs: int,
) -> Outcome:
    """Run ``step(name, results so far)`` for each name, as soon as what it needs is there.

    ``needs`` has no cycle. A step that raises a CloudImportError stops those that need it, and no other. At
    another exception, or an interrupt, ``stop`` is called, which ends the steps that run; then it is raised.
    """
    results: dict[str, Any] = {}
    errors: dict[str, CloudImportError] = {}
    skipped: dict[str, str] = {}
    left, running = dict(needs), dict[Future[Any], str]()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while left or running:
                _skip(left, errors, skipped)
                for name in [name for name, others in left.items() if set(others) <= set(results)]:
                    del left[name]
                    running[pool.submit(step, name, results)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    try:
                        results[name] = future.result()
                    except CloudImportError as error:
                        errors[name] = error
        except BaseException:
            for future in running:
                future.cancel()
            stop()
            raise
    return Outcome(results, errors, skipped)


def _skip(left: dict[str, Collection[str]], errors: Mapping[str, Any], skipped: dict[str, str]) -> None:
    """Take out what waits for something that will not come."""
    is_more = True
    while is_more:
        is_more = False
        for name, others in list(left.items()):
            lost = next((one for one in others if one in errors or one in skipped), None)
            if lost is not None:
                skipped[name] = lost
                del left[name]
                is_more = True
