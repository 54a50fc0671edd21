"""The same, by name."""


def call(a, args, function="none"):
    return [a, args, function]
