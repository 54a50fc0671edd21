"""Parameters with the names that other tools keep for themselves."""


def call(a, args, /, shelf=None, *rest, update=False, **more):
    return {"a": a, "args": args, "shelf": shelf, "rest": rest, "update": update, "more": more}


def _helper():
    raise AssertionError("never run")
