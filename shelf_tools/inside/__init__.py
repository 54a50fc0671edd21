"""Scripts that run inside the sandbox, under the target's interpreter (CPython 3.10 and later).

They import the standard library and, for installing, the ``installer`` package; never each other.
"""
