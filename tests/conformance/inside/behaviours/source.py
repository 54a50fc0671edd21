"""Sources: ``inspect``, ``linecache``, tracebacks, warnings, ``pdb``, doctests."""

# ruff: noqa: BLE001 - whatever is raised is a result

import contextlib
import doctest
import importlib.util
import inspect
import io
import linecache
import os
import pdb  # noqa: T100
import sys
import traceback
import warnings

from behaviours.modules import module_names
from behaviours.objects import own_objects
from behaviours.record import digest, loaded, spread

_MODULES = 120


def sources(subject, record):
    """``inspect.getsource`` of modules, classes and functions; ``linecache``."""
    for name in spread(loaded(subject), _MODULES):
        module = sys.modules[name]
        record.check(name, _module_source, module)
        for key, value in own_objects(name):
            record.check(f"{name}.{key}", _object_source, value)


def _module_source(module):
    file = inspect.getsourcefile(module)
    lines = [linecache.getline(file or "", number) for number in (1, 2, 7)]
    return [file, digest(inspect.getsource(module)), lines]


def _object_source(value):
    code = getattr(inspect.unwrap(value), "__code__", None)
    text, line = inspect.getsourcelines(value)
    where = [code.co_filename, code.co_firstlineno] if code else None
    return [inspect.getfile(value), line, digest("".join(text)), where]


def doctests(subject, record):
    """What ``doctest`` finds in modules, and how a few of the shorter ones go."""
    names = [name for name in loaded(subject) if ">>>" in (sys.modules[name].__doc__ or "")]
    names += [name for name in spread(loaded(subject), 25) if name not in names]
    run = 0
    for name in names[:40]:
        found = record.check(name, _find_doctests, name)
        if found and 0 < sum(test[2] for test in found) <= 15 and run < 3:
            run += 1
            record.check(name + " run", _run_doctests, name)


def _find_doctests(name):
    tests = doctest.DocTestFinder(exclude_empty=True).find(sys.modules[name])
    return sorted([test.name, test.lineno, len(test.examples), test.filename] for test in tests)


def _run_doctests(name):
    runner = _Runner(verbose=False)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for test in doctest.DocTestFinder(exclude_empty=True).find(sys.modules[name]):
            runner.run(test)
        result = runner.summarize(verbose=False)
    return [sorted(runner.failed, key=str), result.failed, result.attempted]


class _Runner(doctest.DocTestRunner):
    """Notes what failed; the full text would have tracebacks, with the frames of the wrapped functions."""

    def __init__(self, **options):
        super().__init__(**options)
        self.failed = []

    def report_failure(self, out, test, example, got):
        self.failed.append([test.name, example.lineno, got])

    def report_unexpected_exception(self, out, test, example, exc_info):
        self.failed.append([test.name, example.lineno, exc_info[0].__name__, str(exc_info[1])])


class HaltedError(Exception):
    """Raised in the middle of a module of the distribution."""


def frames(subject, record):
    """Tracebacks, warnings and the debugger in the middle of modules: file, line and the line's text."""
    names = [name for name in module_names(subject) if "__main__" not in name]
    for name in spread(names, 8):
        record.check(name + " raises", _stopped, name, _raise)
        record.check(name + " warns", _stopped, name, _warn)
        record.check(name + " debugged", _stopped, name, _debug)


def _stopped(name, action):
    """Execute a module's code until its fourth line, do something there; return what that gives."""
    spec = importlib.util.find_spec(name)
    code = spec.loader.get_code(name)
    if code is None:
        return "no code"
    lines = []
    given = []

    def trace(frame, event, _):
        if frame.f_code.co_filename != code.co_filename:
            return None
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == 4:
                given.append(action(frame))
                raise HaltedError("in the middle")
        return trace

    text = ""
    sys.settrace(trace)
    try:
        exec(code, {"__name__": name, "__file__": spec.origin, "__package__": spec.parent})
    except BaseException as error:
        sys.settrace(None)
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__.tb_next))
    finally:
        sys.settrace(None)
    return [lines[:4], given, text[-3000:]]


def _raise(frame):
    return frame.f_code.co_filename


def _warn(frame):
    """Warn of the line that is being traced: that of the caller of this function's caller."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        warnings.warn("from the probe", stacklevel=3)
    (found,) = warned
    text = warnings.formatwarning(found.message, found.category, found.filename, found.lineno)
    return [found.filename == frame.f_code.co_filename, found.lineno == frame.f_lineno, text]


def _debug(frame):
    said = io.StringIO()
    debugger = pdb.Pdb(stdin=io.StringIO("list\nlonglist\nquit\n"), stdout=said, readrc=False, nosigint=True)
    debugger.use_rawinput = False
    debugger.reset()
    debugger.setup(frame, None)
    debugger.cmdloop()
    return said.getvalue()[:3000]


def by_path(subject, record):
    """A module file that is loaded by its path, as plug-in systems do (OpenCV, conftest, Sphinx)."""
    files = [f for f in subject.files if f.endswith(".py") and os.path.basename(f) == "__init__.py"]
    for number, file in enumerate(spread(files, 5)):
        record.check(file, _load_by_path, f"conformance_by_path_{number}", subject.path(file))


def _load_by_path(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    code = spec.loader.get_code(name)
    return [
        spec.origin,
        spec.cached,
        code.co_filename,
        list(code.co_names)[:40],
        digest(spec.loader.get_source(name)),
    ]
