"""Is called as a module of the standard library, and reads that one."""


def draw():
    import random
    import tempfile  # which imports random

    return [random.Random(1).randint(1, 6) > 0, tempfile.gettempdir(), random.__name__, __name__]
