"""Prints and logs on its way, and picks a character of its argument."""

import sys

from cloudimport import requirements as needing


@needing({"six": "1.17.0"})
def my_function(value: str):
    import six

    print(f"the value is {value}")
    print("to standard error", file=sys.stderr)
    return six.ensure_str(f"{value} " * 3)[-2]
