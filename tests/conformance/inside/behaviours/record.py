"""Writing down what a probe shows: values as JSON, and exceptions as what they say and where they arose."""

# ruff: noqa: BLE001 - whatever is raised is a result

import hashlib
import json
import os
import sys
import traceback


class Subject:
    """What is looked at: a distribution, as the runner found it in the folder that pip has made.

    ``files`` are paths relative to the root, ``roots`` the import names that the distribution owns,
    ``skip`` modules that end the interpreter. Both sides get the same subject.
    """

    def __init__(self, root, fields):
        self.root = root
        self.name = fields["name"]
        self.roots = fields["roots"]
        self.files = fields["files"]
        self.scripts = fields["scripts"]
        self.mains = fields["mains"]
        self.libraries = fields["libraries"]
        self.programs = fields["programs"]
        self.databases = fields["databases"]
        self.archives = fields["archives"]
        self.namespaces = fields["namespaces"]
        self.group = fields["group"]
        self.skip = frozenset(fields["skip"])

    def path(self, relative):
        """Return the path of a file."""
        return os.path.join(self.root, relative)

    def data(self):
        """Return the files that are neither source nor native nor metadata."""
        ends = (".py", ".so", ".pyc")
        return [f for f in self.files if not f.endswith(ends) and ".dist-info/" not in f and ".so." not in f]


class Recorder:
    """Appends to the results; each line is whole when the interpreter dies."""

    def __init__(self, path, root):
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._root = root + "/"
        self._behaviour = ""

    def _write(self, *fields):
        line = json.dumps(fields, sort_keys=True, default=repr) + "\n"
        os.write(self._fd, line.encode(errors="backslashreplace"))

    def run(self, behaviour, probe, subject):
        """Run a probe. What it does not catch itself is written down as its failure."""
        self._behaviour = behaviour
        self._write("start", behaviour)
        try:
            probe(subject, self)
        except BaseException as error:
            self._write("broken", behaviour, self.describe(error), traceback.format_exc())
            return
        self._write("end", behaviour)

    def begin(self, item):
        """Say what is about to be tried: it is to blame if the interpreter ends here."""
        self._write("begin", self._behaviour, item)

    def value(self, item, value):
        """Write down a value."""
        self._write("value", self._behaviour, item, value)

    def check(self, item, function, *args):
        """Call a function and write down what it returns or raises; returns the value, or None."""
        self.begin(item)
        try:
            value = function(*args)
        except BaseException as error:  # SystemExit of a module is a result as well
            self.value(item, {"raised": self.describe(error)})
            return None
        self.value(item, value)
        return value

    def refusal(self, item, function, *args):
        """Call a function that should raise, and write down what it raises: that is no failure."""
        self.begin(item)
        try:
            self.value(item, function(*args))
        except BaseException as error:
            self.value(item, {"refused": self.describe(error)})

    def describe(self, error):
        """Return what is the same for the same failure: type, text, and the frames in the packages."""
        return {
            "type": type(error).__module__ + "." + type(error).__qualname__,
            "text": str(error),
            "frames": self.frames(error),
            "cause": self.describe(error.__cause__) if error.__cause__ is not None else None,
        }

    def frames(self, error):
        """Return the frames of an exception that lie in the packages, with their source lines."""
        found = traceback.extract_tb(error.__traceback__)
        return [[f.filename, f.lineno, f.name, f.line] for f in found if f.filename.startswith(self._root)][
            -8:
        ]


def digest(data):
    """Return a short digest of bytes or text."""
    if isinstance(data, str):
        data = data.encode(errors="surrogatepass")
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"


def way(path, count):
    """Return a number below ``count`` that a path is given on both sides: which way it is opened."""
    return hashlib.sha256(path.encode()).digest()[0] % count


def spread(items, count):
    """Return ``count`` of the items, evenly spread over all of them."""
    items = list(items)
    if len(items) <= count:
        return items
    step = len(items) / float(count)
    return [items[int(at * step)] for at in range(count)]


def attempt(function, *args):
    """Return what a function returns, or what it raises as text."""
    try:
        return function(*args)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def loaded(subject):
    """Return the names of the distribution's modules that are loaded, sorted."""
    below = tuple(root + "." for root in subject.roots)
    return sorted(
        name
        for name, module in list(sys.modules.items())
        if (name in subject.roots or name.startswith(below)) and isinstance(module, type(sys))
    )
