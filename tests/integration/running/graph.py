"""Four functions that take one another's results; two of them meet, which they can only at the same time."""

import cloudimport

NONE = {}


@cloudimport.requirements({"six": ""})
def load(path, count: int = 3):
    import six

    return [six.ensure_text(path)] * count


@cloudimport.requirements(NONE)
def left(load, port=0):
    return meet(port, b"left") + len(load)


@cloudimport.requirements(NONE)
def right(load, port=0):
    return meet(port, b"right") + len(load)


@cloudimport.requirements({"logzero": "", "six": ">=1.10,<2"})
async def report(left, right, title="sum"):
    import logzero
    import six

    assert logzero
    assert six.PY3
    return {title: left + right}


def meet(port, name):
    """Say that one is there, and wait until both are."""
    import socket

    if not port:
        return 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        one.sendall(name)
        return len(one.recv(2))
