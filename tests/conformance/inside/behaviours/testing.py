"""Test runners: unittest discovery in a package's folders, pytest on its modules and with its plug-in."""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from importlib.metadata import distribution

from behaviours.record import digest, spread


def _test_folders(subject):
    """Return the folders of the distribution that hold test modules, those with few first."""
    counts = {}
    for file in subject.files:
        folder, name = os.path.split(file)
        if name.startswith("test") and name.endswith(".py") and folder:
            counts[folder] = counts.get(folder, 0) + 1
    return sorted(counts, key=lambda folder: (counts[folder], folder))


def discovery(subject, record):
    """``unittest`` discovery, as ``python -m unittest discover`` does it."""
    for folder in _test_folders(subject)[:3]:
        record.check(folder, _discover, subject.path(folder), subject.root)


def _discover(folder, root):
    loader = unittest.TestLoader()
    suite = loader.discover(folder, top_level_dir=root)
    found = sorted(test.id() for test in _flat(suite))
    # An error is a traceback whose last line says it; the frames of importlib are not the packages' own.
    errors = sorted(error.strip().splitlines()[-1] for error in loader.errors)
    return [len(found), digest("\n".join(found)), errors]


def _flat(suite):
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from _flat(part)
        else:
            yield part


def by_pytest(subject, record):
    """``pytest`` by path and by name: what it collects, and how two of the smaller files go."""
    files = [f for f in subject.files if os.path.basename(f).startswith("test_") and f.endswith(".py")]
    small = sorted(files, key=lambda file: (os.path.getsize(subject.path(file)), file))
    for file in spread(small[: len(small) // 2], 2):
        record.check("collects " + file, _pytest, "--collect-only", subject.path(file))
        name = file[:-3].replace("/", ".")
        record.check("runs " + name, _pytest, "-rA", "--pyargs", name)
    points = distribution(subject.name).entry_points
    if any(point.group == "pytest11" for point in points):
        record.check("plug-in", _plugin)


def _pytest(*arguments):
    with tempfile.TemporaryDirectory() as folder:
        code, said = _run_pytest(folder, "-q", "--tb=line", "--rootdir", folder, *arguments)
    said = re.sub(r" in [\d.]+s( \([\d:]+\))?", "", said)  # how long it took is no result
    return [code, said[-3000:], digest(said)]


def _run_pytest(folder, *arguments):
    """Return the exit code and what it wrote, without the name of the folder it ran in."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        check=False,
    )
    return done.returncode, done.stdout.replace(folder, "<cwd>")


def _plugin():
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "test_nothing.py"), "w") as file:
            file.write("def test_nothing():\n    assert True\n")
        code, said = _run_pytest(folder, "--trace-config", folder)
    lines = said.splitlines()
    # Which plug-ins come from where; not how long it took, nor which descriptors are in use.
    at = next((number for number, line in enumerate(lines) if "registered third-party" in line), len(lines))
    end = next((n for n, line in enumerate(lines[at:], at) if "active plugins" in line), len(lines))
    return [code, sorted(lines[at:end]), sum("PLUGIN registered" in line for line in lines)]
