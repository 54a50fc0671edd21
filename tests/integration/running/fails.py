"""One of two fails; the other goes to its end, and what needs both is not begun."""


def broken(value=1):
    inner = {"value": value}
    return inner["nothing"]


def sound():
    print("sound was run")
    return 1


def both(broken, sound):
    return [broken, sound]
