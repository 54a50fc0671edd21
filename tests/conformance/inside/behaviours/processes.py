"""Worker processes: each way of starting them, with functions and classes of the distribution."""

# ruff: noqa: BLE001 - whatever is raised is a result

import importlib
import multiprocessing
import pickle
import signal
from concurrent.futures import ProcessPoolExecutor

from behaviours.modules import identity
from behaviours.objects import own_objects

_ALARM = 200


def workers(subject, record):
    """``ProcessPoolExecutor``, ``Pool`` and ``Process`` by spawn, forkserver and fork."""
    roots = subject.roots[:2]
    for root in roots:
        # Forked first, so that what the child imports has not been imported here.
        record.check(root + " fork", _in_time, _pool, root)
        record.check(root + " forkserver", _in_time, _process, root)
        record.check(root + " spawn", _in_time, _executor, root)
        record.check(root + " spawn, objects", _in_time, _objects, root)


def _in_time(function, root):
    signal.alarm(_ALARM)
    try:
        return function(root)
    finally:
        signal.alarm(0)


def _pool(root):
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(look, (root,))


def _executor(root):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(look, root).result()


def _process(root):
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe()
    process = context.Process(target=send, args=(there, root))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


def _objects(root):
    importlib.import_module(root)
    things = [value for _, value in own_objects(root)]
    fine = []
    for thing in things:
        try:
            fine.append(pickle.dumps(thing) and thing)
        except Exception:
            continue  # that it cannot be pickled is an item of its own
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return [pool.apply(names_of, (thing,)) for thing in fine]


def send(connection, root):
    """Send what ``look`` says, or raises, to the parent."""
    try:
        connection.send(look(root))
    except Exception as error:
        connection.send([type(error).__name__, str(error)])


def look(root):
    """Import a package in a worker and return what it knows of itself."""
    return identity(importlib.import_module(root))


def names_of(thing):
    """Return what an object that came from the parent is called here."""
    return [thing.__module__, thing.__qualname__]
