"""Running one function of a file, in Lambda or in a sandbox like it (docs/running.md).

``handler`` is for a deployed function: an event brings the file, the function's name, its arguments, and the
lock of its environment, and each event gets a process of its own, so that nothing is left to the next. As
a script it is that process, and what ``shelf run`` starts in a sandbox. Nothing but the standard library and
``cloudimport`` is imported, and no name of the file's is in the way: it is run by its path.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType
    from typing import Any

#: What an event of ours has, and the version of its form.
KEY, VERSION = "cloudimport_run", 1
#: Bytes of a synchronous event, and of an answer, at the most ("Lambda quotas": 6 MB).
PAYLOAD = 6 * 1024 * 1024
#: Bytes that stay for what is around a value in an answer.
_MARGIN = 64 << 10
#: Seconds before the end of Lambda's time at which a function is stopped, so that it can be said which.
_SPARE = 0.5
#: Seconds in which what a function leaves has to end when it is killed.
_ENDING = 2.0
#: prctl(2): processes whose parent has ended become this one's.
_SET_CHILD_SUBREAPER = 36
#: Levels of a value that are searched for what is not JSON.
_DEEPEST = 200
#: Files whose frames, with ours, nobody wants to see at the beginning of a traceback.
_IMPORTLIB = ("<frozen importlib._bootstrap_external>", "<frozen importlib._bootstrap>")
#: Characters of a traceback's end that are kept.
_TRACEBACK = 32 << 10


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Run what an event asks for in a process of its own; return its value, or its error, and figures.

    ``{"describe": true}`` returns the targets of this interpreter, best first.
    """
    if not isinstance(event, dict) or event.get(KEY) != VERSION:
        return _refused(f"this is a runner of 'shelf run --remote': it takes events with {KEY}={VERSION}")
    if event.get("describe"):
        from cloudimport.ids import running_targets

        return {"targets": list(map(str, running_targets()))}
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="cloudimport-run-")
    try:
        left = getattr(context, "get_remaining_time_in_millis", lambda: 900_000)() / 1000
        return _in_process(event, folder, left - _SPARE)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refused(message: str) -> dict[str, Any]:
    return {"error": {"type": "BadEvent", "message": message, "traceback": ""}}


def _in_process(event: Mapping[str, Any], folder: str, seconds: float) -> dict[str, Any]:
    """Run an event in a child process for so many seconds at the most, and end whatever it leaves."""
    import subprocess

    _adopt()
    spared = _below()
    path = os.path.join(folder, "event.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(event, file)
    with open(os.path.join(folder, "answer.json"), "w+b") as answer:
        child = subprocess.Popen(
            [sys.executable, "-u", os.path.abspath(__file__), path, folder, str(answer.fileno())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=(answer.fileno(),),
            start_new_session=True,
        )
        try:
            status: int | None = child.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            child.kill()
            child.wait()
            _end_all(spared)
        answer.seek(0)
        data = answer.read(PAYLOAD + 1)
    return answered(data, status, seconds, str(event.get("function")))


def _adopt() -> None:
    """Have what loses its parent below this process become its child, and not that of init."""
    import ctypes

    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _below() -> set[int]:
    """Return the processes below this one."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        children.setdefault(parent, []).append(int(name))
    found = [os.getpid()]
    for one in found:
        found += children.get(one, ())
    return set(found[1:])


def _end_all(spared: set[int]) -> None:
    """Kill what is below this process, in whatever session, but for some; if it goes on, end this one too:
    Lambda then takes another sandbox.
    """
    import signal

    until = time.monotonic() + _ENDING
    while left := _below() - spared:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
            except OSError:
                pass  # it has ended, or is not a child yet
        if time.monotonic() > until:
            os._exit(1)
        time.sleep(0.001)


def answered(data: bytes, status: int | None, seconds: float, name: str) -> dict[str, Any]:
    """Return what a process has left: its answer, or what became of it (None: its time was over)."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else ended(status, seconds, name)


def ended(status: int | None, seconds: float, name: str) -> dict[str, Any]:
    """Return the answer for a process that gave none: its exit status, or None if its time was over."""
    if status is None:
        kind, said = "Timeout", f"{name}() was stopped after {seconds:.1f} s"
    elif status in (-9, 137):
        kind, said = "Killed", f"{name}() was killed: it took more memory than there is, or killed itself"
    elif status < 0 or status > 128:
        kind, said = "Died", f"{name}() died of signal {-status if status < 0 else status - 128}"
    else:
        kind, said = "Exited", f"{name}() ended its process with status {status} and returned nothing"
    return {"error": {"type": kind, "message": said, "traceback": ""}}


def perform(event: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Run an event in this process; ``folder`` is where its file and lock are, or are written."""
    began = time.monotonic()
    try:
        path = _place(event, folder)
        _install(event, folder)
        module = _load(path)
        value = _called(getattr(module, event["function"]), event["args"], event["kwargs"])
        answer = {"value": _checked(value, event["function"])}
    except BaseException as error:  # noqa: BLE001 (whatever the function raises is what is to be told)
        answer = {"error": _told(error)}
    answer["seconds"] = round(time.monotonic() - began, 3)
    answer["stats"] = _stats()
    return answer


def _place(event: Mapping[str, Any], folder: str) -> str:
    """Return the path of the event's file, which is written if it is not there."""
    path = os.path.join(folder, os.path.basename(event["file"]))
    if not os.path.exists(path):
        with open(path, "xb") as file:
            file.write(base64.b64decode(event["code"]))
    return path


def _install(event: Mapping[str, Any], folder: str) -> None:
    """Install the environment of an event, whose index may come with it."""
    if not event.get("lock"):
        return
    import cloudimport
    from cloudimport import settings
    from cloudimport.cache.folder import open_folder
    from cloudimport.environments import keep_index
    from cloudimport.events import Counters
    from cloudimport.format import codec
    from cloudimport.format.lock import Lock
    from cloudimport.format.records import sha256

    path = os.path.join(folder, "run.lock")
    if not os.path.exists(path):
        with open(path, "x", encoding="utf-8") as file:
            file.write(event["lock"])
    if event.get("index"):
        (ref,) = Lock.decode(event["lock"], path).targets.values()
        data = codec.decompress(base64.b64decode(event["index"]), ref.size)
        if sha256(data) == ref.digest:  # else it is asked for
            keep_index(open_folder(settings.resolve(lock=path).cache), ref, data, Counters())
    cloudimport.install(lock=path)


def _load(path: str) -> ModuleType:
    """Run a file as a module. Its folder comes last on ``sys.path``, so that it is in nobody's way."""
    from importlib.util import find_spec, module_from_spec, spec_from_file_location

    name = os.path.basename(path).partition(".")[0]
    if not name.isidentifier() or name in sys.modules or find_spec(name) is not None:
        name = f"_run_{''.join(c if c.isalnum() else '_' for c in name)}"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(os.path.dirname(path))
    import cloudimport

    # A file need not import it.
    module.requirements = cloudimport.requirements  # type: ignore[attr-defined]
    spec.loader.exec_module(module)
    return module


def _called(function: Any, args: Any, kwargs: Any) -> Any:
    value = function(*args, **kwargs)
    if hasattr(value, "__await__"):
        import asyncio

        async def wait() -> Any:
            return await value

        value = asyncio.run(wait())
    return value


def _checked(value: Any, name: str) -> Any:
    """Return a value that is JSON and fits into an answer. Raises TypeError or ValueError that says why."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError, OverflowError):
        found = next(_not_json(value, "", 0), None)
        what, where = found or (type(value).__name__, "")
        inside = f" (in {where[:200]})" if where else ""
        raise TypeError(f"{name}() returned what is not JSON: {what}{inside}") from None
    limit = PAYLOAD - _MARGIN
    if len(text) > limit:
        raise ValueError(f"{name}() returned {len(text)} bytes of JSON, and at most {limit} go on")
    return json.loads(text)


def _not_json(value: Any, where: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield what is not JSON, and where in the value it stands."""
    if depth > _DEEPEST:
        yield f"{type(value).__name__} nested more than {_DEEPEST} deep, or in itself", where
    elif isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        yield f"the float {value}", where
    elif isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(key, (str, int, float, bool, type(None))):
                yield f"a key of type {type(key).__name__}", where
            yield from _not_json(one, f"{where}[{key!r}]", depth + 1)
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _not_json(one, f"{where}[{number}]", depth + 1)
    elif not isinstance(value, (str, int, float, bool, type(None))):
        yield type(value).__name__, where


def _told(error: BaseException) -> dict[str, str]:
    """Return an error for people: its traceback begins in the file, or where the error itself says."""
    import traceback

    import cloudimport

    decorator = os.path.join(os.path.dirname(cloudimport.__file__), "needing.py")
    ours = (__file__, decorator, *_IMPORTLIB)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    text = "".join(lines) if trace is not None or isinstance(error, SyntaxError) else ""
    message = "".join(traceback.format_exception_only(type(error), error)).strip()
    return {
        "type": type(error).__name__,
        "message": message.splitlines()[-1][:2000] if message else type(error).__name__,
        "traceback": text[-_TRACEBACK:],
    }


def _stats() -> dict[str, float]:
    import cloudimport

    return cloudimport.stats()


def main(event_path: str, folder: str, descriptor: int) -> None:
    """Run the event in a file; write the answer to a descriptor, and end, whatever still runs."""
    beside = os.path.dirname(os.path.abspath(__file__))
    above = os.path.dirname(beside)
    first = [above] if os.path.isdir(os.path.join(above, "cloudimport")) else []
    sys.path[:] = dict.fromkeys([*first, *(path for path in sys.path if path not in (beside, ""))])
    with open(event_path, encoding="utf-8") as file:
        event = json.load(file)
    answer = json.dumps(perform(event, folder)).encode()
    view = memoryview(answer)
    while view:
        view = view[os.write(descriptor, view) :]
    atexit._run_exitfuncs()  # not by the interpreter's end, which waits for threads
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the function may have closed it
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
