"""Importing: every module of a distribution, specs, reloading, lazy loading, threads, shutdown."""

# ruff: noqa: BLE001 - whatever is raised is a result

import contextlib
import importlib
import importlib.util
import io
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import types
import warnings
from importlib import machinery

from behaviours.record import digest, loaded, spread

#: Seconds for the import of one module. The signal ends the interpreter: that is the module's result.
_ALARM = 240
_LOADERS = (
    "SourceFileLoader ExtensionFileLoader SourcelessFileLoader NamespaceLoader BuiltinImporter FrozenImporter"
).split()


def walk(subject, record):
    """Import every module, as ``pkgutil.walk_packages`` finds them, and look at each."""
    sys.argv = [sys.argv[0], "--help"]  # for those that look there when they are imported
    for root in subject.roots:
        _visit(root, subject, record)


def _visit(name, subject, record):
    if name in subject.skip:
        return
    facts = record.check(name, look_at, name)
    module = sys.modules.get(name)
    path = getattr(module, "__path__", None)
    if facts is None or path is None:
        return
    found = record.check(name + " lists", _listed, path, name)
    for child, _ in found or ():
        _visit(child, subject, record)


def _listed(path, name):
    return sorted([m.name, m.ispkg] for m in pkgutil.iter_modules(path, name + "."))


def look_at(name):
    """Import a module and return what can be said of it; all that it prints and warns of is part of that."""
    signal.alarm(_ALARM)
    said = io.StringIO()
    try:
        with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(said):
            warnings.simplefilter("always")
            importlib.import_module(name)
    finally:
        signal.alarm(0)
    facts = identity(sys.modules[name])
    if said.getvalue():
        facts["printed"] = said.getvalue()[:2000]
    if warned:
        facts["warned"] = [[w.category.__name__, str(w.message), w.filename, w.lineno] for w in warned][:20]
    return facts


def identity(module):
    """Return what a module knows of itself."""
    spec = getattr(module, "__spec__", None)
    path = getattr(module, "__path__", None)
    return {
        "name": getattr(module, "__name__", None),
        "file": getattr(module, "__file__", None),
        "path": list(path) if path is not None else None,
        "package": getattr(module, "__package__", None),
        "cached": getattr(module, "__cached__", None),
        "doc": digest(repr(getattr(module, "__doc__", None))),
        "loader": loader_kind(getattr(module, "__loader__", None)),
        "spec": describe_spec(spec) if isinstance(spec, machinery.ModuleSpec) else repr(spec),
        "names": digest("\n".join(sorted(map(str, vars(module))))),
    }


def describe_spec(spec):
    """Return what a spec says."""
    if spec is None:
        return None
    search = spec.submodule_search_locations
    return {
        "name": spec.name,
        "origin": spec.origin,
        "cached": spec.cached,
        "parent": spec.parent,
        "has_location": spec.has_location,
        "search": list(search) if search is not None else None,
        "loader": loader_kind(spec.loader),
    }


def loader_kind(loader):
    """Return which of importlib's loaders one is, by what it is an instance of."""
    kinds = [getattr(machinery, name, None) for name in _LOADERS]
    for kind in kinds:
        if kind is not None and (isinstance(loader, kind) or loader is kind):
            return kind.__name__
    return type(loader).__name__


def module_names(subject):
    """Return names of all modules that the distribution's files are, by their paths."""
    names = set()
    for file in subject.files:
        stem, _, rest = file.partition(".")
        if rest in ("py", "so", "abi3.so") or (rest.startswith("cpython-") and rest.endswith(".so")):
            name = stem.replace("/", ".")
            name = name[: -len(".__init__")] if name.endswith(".__init__") else name
            if any(name == root or name.startswith(root + ".") for root in subject.roots):
                names.add(name)
    return sorted(names)


def specs(subject, record):
    """``importlib.util.find_spec`` of top levels, which imports nothing; of a sample below them."""
    for root in subject.roots:
        if "." in root:
            continue  # it would import the parents
        record.check(root, _spec, root)
        record.value(root + " is not imported", root in sys.modules)
        record.refusal(root + ".no_such_module", _spec, root + ".no_such_module")
    for name in spread(module_names(subject), 40):
        record.check(name, _spec, name)


def _spec(name):
    return describe_spec(importlib.util.find_spec(name))


def reload(subject, record):
    """``importlib.reload`` of each top level."""
    for root in subject.roots:
        record.check(root, _reload, root)


def _reload(name):
    module = importlib.import_module(name)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        again = importlib.reload(module)
    return [again is module, identity(again)]


def lazy(subject, record):
    """``importlib.util.LazyLoader``: not executed until it is used."""
    for root in subject.roots[:20]:
        record.check(root, _lazy, root)


def _lazy(name):
    if name in sys.modules:
        return "has been imported by another one"
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return repr(spec and spec.loader)
    if not hasattr(spec.loader, "exec_module"):
        return loader_kind(spec.loader)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before = type(module).__name__
    return [before, module.__doc__ and digest(module.__doc__), identity(module)]


def sys_modules(subject, record):
    """What a program does with ``sys.modules``: takes modules out, forbids them, puts others in."""
    for root in subject.roots[:20]:
        record.check(root + " taken out", _taken_out, root)
        record.refusal(root + " forbidden", _replaced, root, None)
        record.refusal(root + " replaced", _replaced, root, types.ModuleType(root))


def _taken_out(name):
    module = importlib.import_module(name)
    held = {key: m for key, m in sys.modules.items() if key == name or key.startswith(name + ".")}
    for key in held:
        del sys.modules[key]
    try:
        again = importlib.import_module(name)
        return [again is module, identity(again)]
    finally:
        sys.modules.update(held)


def _replaced(name, other):
    before = sys.modules.get(name)
    sys.modules[name] = other
    try:
        return repr(importlib.import_module(name + ".no_such_module"))
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before


def threads(subject, record):
    """Eight threads import parts of the distribution at once; what stands there in the end is looked at."""
    names = spread([n for n in module_names(subject) if "test" not in n and "__main__" not in n], 16)
    importable = _importable(names)
    barrier = threading.Barrier(8)
    failures = []

    def work(number):
        barrier.wait()
        # First all the same: else parts that import one another would deadlock more often than not.
        for root in subject.roots:
            try:
                importlib.import_module(root)
            except BaseException as error:
                failures.append(f"{root}: {type(error).__name__} {error}")
        barrier.wait()
        for at in range(len(names)):
            with contextlib.suppress(BaseException):
                importlib.import_module(names[(at + number * 2) % len(names)])

    record.begin("threads")
    deadlocks = _watch_deadlocks()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(200)
    record.value("still running", sum(worker.is_alive() for worker in workers))
    record.value("failures", sorted(failures))
    for name in importable():
        if deadlocks:
            # Which thread's import failed then, and what that has left behind, is luck.
            record.value(name, {"unsteady": "importlib found a deadlock of " + deadlocks[0]})
        else:
            record.check(name, look_at, name)


def _watch_deadlocks():
    """Return a list that gets the names of modules at whose locks importlib finds a deadlock.

    Threads that import parts of a package which import one another wait for each other. importlib lets one of
    them fail, in up to half of all runs under pip; the modules that were being imported stay away, and those
    that they had imported stay without them.
    """
    lock, found = importlib._bootstrap._ModuleLock, []
    has_deadlock = lock.has_deadlock

    def watched(self):
        result = has_deadlock(self)
        if result:
            found.append(self.name)
        return result

    lock.has_deadlock = watched
    return found


def _importable(names):
    """Fork a child; return a function that has it say which modules can be imported one after the other.

    Of a package whose import fails threads may import a part, if they come at the right moment.
    """
    waiting, going = os.pipe()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(going)
        os.read(waiting, 1)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                with contextlib.suppress(BaseException):
                    importlib.import_module(name)
                    os.write(writing, name.encode() + b"\n")
        os._exit(0)

    def found():
        os.close(writing)
        os.close(going)  # what it waits for
        with open(reading, encoding="utf-8") as lines:
            names = lines.read().split()
        os.waitpid(pid, 0)
        return names

    return found


_SHUTDOWN = """
import atexit, importlib, sys, threading, time
early, late, later, data = sys.argv[1:]

def tell(what, function, *args):
    try:
        print(what, function(*args), flush=True)
    except BaseException as error:
        print(what, type(error).__name__, error, flush=True)

def bring(name):
    return getattr(importlib.import_module(name), "__file__", None)

def read(path):
    with open(path, "rb") as file:
        return len(file.read())

class Last:
    def __del__(self):
        tell("del", read, data)

def outlive():
    threading.main_thread().join()
    tell("thread", bring, late)

atexit.register(tell, "atexit", bring, later)
atexit.register(tell, "atexit", read, data)
threading.Thread(target=outlive).start()
last = Last()
tell("main", bring, early)
"""


def shutdown(subject, record):
    """Imports and data in ``atexit`` functions, in a thread that outlives the main one, in ``__del__``."""
    names = [n for n in module_names(subject) if "test" not in n and "__main__" not in n]
    if not names:
        return
    chosen = (spread(names, 3) * 3)[:3]
    data = (spread(subject.data(), 1) or subject.files)[0]
    with tempfile.TemporaryDirectory() as folder:
        script = os.path.join(folder, "shutdown.py")
        with open(script, "w") as file:
            file.write(_SHUTDOWN)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", script, *chosen, subject.path(data)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    record.value("at shutdown", [done.returncode, done.stdout.splitlines()])


def namespaces(subject, record):
    """Namespace packages: portions of several distributions, and of local folders that come later."""
    for name in subject.namespaces:
        record.check(name, look_at, name)
        record.check(name + " lists", lambda name=name: _listed(sys.modules[name].__path__, name))
        record.check(name + " and a local folder", _local_portion, name)
        record.check(name + " afterwards", look_at, name)


def _local_portion(name):
    with tempfile.TemporaryDirectory() as local:
        folder = os.path.join(local, *name.split("."))
        os.makedirs(folder)
        with open(os.path.join(folder, "conformance_local.py"), "w") as file:
            file.write("where = __name__\n")
        sys.path.append(local)
        try:
            importlib.invalidate_caches()
            found = importlib.import_module(name + ".conformance_local").where
            inside = [entry.replace(local, "<local>") for entry in sys.modules[name].__path__]
        finally:
            sys.path.remove(local)
            importlib.invalidate_caches()
    return [found, inside]


def repeated(subject, record):
    """All of the distribution's loaded modules are found again at the places that they name."""
    importlib.invalidate_caches()
    for name in loaded(subject):
        file = getattr(sys.modules[name], "__file__", None)
        if file:
            record.check(name, os.path.exists, file)
