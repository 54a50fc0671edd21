"""Functions that do what nobody should."""

import os
import signal
import sys
import threading
import time


def nan():
    return {"a": [1, float("nan")]}


def raw():
    return b"bytes"


def unordered():
    return [{1}]


def keys():
    return {(1, 2): 3}


def endless():
    while True:
        pass


def floods():
    line = "x" * 1023 + "\n"
    for _ in range(100 << 10):
        sys.stdout.write(line)
    return "flooded"


def forks():
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3600)
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return "forked"


def leaves():
    os._exit(3)


def dies():
    os.kill(os.getpid(), signal.SIGSEGV)


def hungry():
    return len(bytearray(3 << 30))


def fills():
    with open("/tmp/file", "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))


def large():
    return "x" * (7 << 20)


def steers():
    print("\x1b[31mred\x07")
    return "\ud800\x1b"


def looks():
    found = [name for name in os.environ if "SECRET" in name or "TOKEN" in name]
    for path in ("/root", "/home", os.path.dirname(__file__)):
        try:
            with open(os.path.join(path, "written"), "w"):
                found.append(path)
        except OSError:
            pass
    return found


def waits():
    print("waiting", os.getpid())
    time.sleep(3600)
