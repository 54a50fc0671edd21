"""Classes and functions of the loaded modules: pickle, cloudpickle, type hints."""

# ruff: noqa: BLE001 - whatever is raised is a result

import functools
import pickle
import subprocess
import sys
import types
import typing

from behaviours.record import attempt, digest, loaded, spread

#: Modules of a distribution, and objects of a module, that are looked at.
_MODULES, _OBJECTS = 60, 4
_KINDS = (type, types.FunctionType, types.BuiltinFunctionType, functools._lru_cache_wrapper)


def own_objects(name):
    """Return a sample of the classes and functions that a loaded module defines, by name."""
    module = sys.modules[name]
    found = [(key, value) for key, value in vars(module).items() if _is_own(value, name, key)]
    found.sort(key=lambda item: item[0])
    return spread(found, _OBJECTS)


def _is_own(value, name, key):
    # By its type alone: to ask a lazy object anything would make it do what it puts off.
    if not issubclass(type(value), _KINDS):
        return False
    return attempt(lambda: (value.__module__, value.__qualname__)) == (name, key)


def pickling(subject, record):
    """``pickle`` by reference, and in another interpreter; ``cloudpickle``, also by value."""
    try:
        import cloudpickle
    except ImportError:
        cloudpickle = None
    pickled = []
    for name in spread(loaded(subject), _MODULES):
        for key, value in own_objects(name):
            item = f"{name}.{key}"
            record.check(item, _round, pickle, value)
            if cloudpickle is not None:
                record.check("cloudpickle " + item, _round, cloudpickle, value)
            pickled.append((item, value))
    chosen = [[item, _pickled(value)] for item, value in spread(pickled, 10)]
    record.check("elsewhere", _elsewhere, [pair for pair in chosen if pair[1]])


def _round(module, value):
    data = module.dumps(value, protocol=4)
    # A fixture or a class of __main__ goes by value: its bytes hold addresses and orders of sets.
    return [module.loads(data) is value, digest(data) if module is pickle else None]


def _pickled(value):
    try:
        return pickle.dumps(value, protocol=4).hex()
    except Exception:
        return None  # its own item says why


_UNPICKLE = """
import pickle, sys
for line in sys.stdin:
    try:
        thing = pickle.loads(bytes.fromhex(line))
        print(thing.__module__, thing.__qualname__)
    except Exception as error:
        print(type(error).__name__, error)
"""


def _elsewhere(chosen):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _UNPICKLE],
        input="\n".join(data for _, data in chosen),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return [done.returncode, done.stdout.splitlines()]


def hints(subject, record):
    """``typing.get_type_hints`` of classes and functions."""
    for name in spread(loaded(subject), _MODULES):
        for key, value in own_objects(name):
            record.check(f"{name}.{key}", _hints, value)


def _hints(value):
    return sorted([key, repr(hint)] for key, hint in typing.get_type_hints(value).items())
