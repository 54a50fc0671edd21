"""The ``shelf`` command: a thin layer over publish and inspect. The only module that prints."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

import cloudimport
from cloudimport.errors import CloudImportError
from cloudimport.ids import Pin, Target, running_targets
from cloudimport.settings import LOCK_NAME, REQUIREMENTS_NAME, default_shelf
from shelf_tools import rehearse
from shelf_tools.boot import Trace, publish_boot
from shelf_tools.export import Export, Wanted
from shelf_tools.inspect import Shelf, Shown
from shelf_tools.mirror import mirror
from shelf_tools.pack import LEVEL
from shelf_tools.picture import page
from shelf_tools.publish import Job, publish
from shelf_tools.recipes import NAME as RECIPES
from shelf_tools.report import Run
from shelf_tools.swap import write_file

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_EPILOG = """\
The shelf is a folder, s3://bucket/prefix (endpoint: AWS_ENDPOINT_URL_S3; credentials: the standard
sources) or any URL that fsspec knows; without --shelf it is CLOUDIMPORT_SHELF, else a folder in
your data folder.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    top = argparse.ArgumentParser(
        prog="shelf",
        description="Publish PyPI packages to object storage, to be imported from there.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"shelf {cloudimport.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shelf = argparse.ArgumentParser(add_help=False)
    shelf.add_argument("--shelf", metavar="URL", help="where the packages lie")

    _add_publish(commands, shelf)
    commands.add_parser("ls", parents=[shelf], help="list what is published")
    show = commands.add_parser("show", parents=[shelf], help="show the builds of one package")
    show.add_argument("pin", metavar="NAME==VERSION")
    verify = commands.add_parser("verify", parents=[shelf], help="read everything back and check it")
    verify.add_argument("pins", metavar="NAME==VERSION", nargs="*")
    _add_export(commands, shelf)
    _add_boot(commands, shelf)
    _add_mirror(commands, shelf)
    report = commands.add_parser(
        "report",
        help="draw what a trace saw: requests, waits and imports on one time axis",
        description="Write a page (HTML, one file) that shows how a start went: what was fetched when, which "
        "import waited for which request, and which bytes nobody needed.",
    )
    report.add_argument(
        "trace", metavar="TRACE", type=Path, help="what 'shelf trace' or CLOUDIMPORT_TRACE wrote"
    )
    report.add_argument("-o", "--output", metavar="FILE", type=Path, default=Path("report.html"))
    return top


def _add_publish(commands: _Commands, shelf: argparse.ArgumentParser) -> None:
    make = commands.add_parser(
        "publish", parents=[shelf], help="install pinned packages once and publish them"
    )
    make.add_argument(
        "-r",
        "--requirements",
        metavar="FILE",
        required=True,
        type=Path,
        help="pins: name==version, one a line",
    )
    make.add_argument(
        "--target",
        metavar="T",
        action="append",
        default=[],
        help="such as cp312-manylinux_2_28_x86_64 or lambda-python3.12-arm64; repeatable; "
        "default: the running interpreter's",
    )
    make.add_argument(
        "--lock",
        metavar="FILE",
        type=Path,
        help=f"the lockfile to write; default: {LOCK_NAME} beside the requirements",
    )
    make.add_argument(
        "--recipes",
        metavar="FILE",
        type=Path,
        help=f"what to put in place at a package's first import; default: {RECIPES} beside the requirements",
    )
    make.add_argument(
        "--jobs", metavar="N", type=_positive, help="packages at a time; default: the number of processors"
    )
    make.add_argument(
        "--level",
        metavar="N",
        type=_level,
        help=f"zstd level, 1 to {LEVEL}, of what importing a package needs; default: {LEVEL}, which takes a "
        "quarter of a second a megabyte, once",
    )
    make.add_argument(
        "--sandbox",
        choices=("bubblewrap", "none"),
        default="bubblewrap",
        help="none: no isolation, at your own risk",
    )


def _add_boot(commands: _Commands, shelf: argparse.ArgumentParser) -> None:
    trace = commands.add_parser(
        "trace",
        parents=[shelf],
        help="run a program or handler once and record what it needs",
        description="Run a Python file as 'python FILE ARG …' would, with an empty cache; with --event call "
        "its handler as Lambda does. What it needed is written when it ends, for 'shelf boot'.",
    )
    trace.add_argument("program", metavar="FILE", type=Path, help="the program, or the handler's file")
    trace.add_argument("arguments", metavar="ARG", nargs="*", help="its arguments")
    trace.add_argument(
        "--event", metavar="JSON", default="", help="call the handler with this, or with @FILE"
    )
    trace.add_argument(
        "--handler", metavar="NAME", default="", help="its function; default: handler, else lambda_handler"
    )
    trace.add_argument("--lock", metavar="FILE", type=Path, help=f"default: {LOCK_NAME} beside the program")
    trace.add_argument("-o", "--output", metavar="FILE", type=Path, default=Path("trace.json"))
    boot = commands.add_parser(
        "boot",
        parents=[shelf],
        help="copy together what a trace names, to be read at once at a cold start",
        description="Write a boot image of what a trace names, and say in the lockfile where it is. It costs "
        "space for what it copies; when it no longer fits, a start is slower, and never different.",
    )
    boot.add_argument(
        "trace", metavar="TRACE", type=Path, help="what 'shelf trace' or CLOUDIMPORT_TRACE wrote"
    )
    boot.add_argument(
        "--lock", metavar="FILE", type=Path, default=Path(LOCK_NAME), help=f"default: {LOCK_NAME}"
    )


def _add_mirror(commands: _Commands, shelf: argparse.ArgumentParser) -> None:
    copy = commands.add_parser(
        "mirror",
        parents=[shelf],
        help="copy what lockfiles need to a folder that sandboxes of this host read",
        description="Copy what lockfiles need to a folder. Sandboxes with CLOUDIMPORT_SHARED set to it take "
        "from there what they would fetch; they check every byte, and need not be able to write there.",
    )
    copy.add_argument("folder", metavar="DIR", type=Path, help="the folder to make or to complete")
    copy.add_argument(
        "--lock",
        metavar="FILE",
        type=Path,
        action="append",
        help=f"repeatable; default: {LOCK_NAME} in the current folder",
    )


def _add_export(commands: _Commands, shelf: argparse.ArgumentParser) -> None:
    export = commands.add_parser(
        "export",
        parents=[shelf],
        help="lay an environment out in a folder, for editors and type checkers",
        description="Lay an environment out in a folder as pip would, read-only, so that pyright, mypy and "
        "jedi see it. An earlier export there is replaced at once; any other folder has to be empty. "
        "Exports share equal files by hard links, on the cache's file system.",
        epilog="Without -r and --lock the environment is that of CLOUDIMPORT_LOCK or "
        f"CLOUDIMPORT_REQUIREMENTS, else of {LOCK_NAME} or {REQUIREMENTS_NAME} in the current folder; "
        "without --shelf, what the lock says.",
    )
    export.add_argument("folder", metavar="DIR", help="the folder to make or to replace")
    export.add_argument(
        "--stubs-only",
        action="store_true",
        help="only what a type checker reads: .pyi, .py (many packages have their types in the source), "
        "py.typed and METADATA; no native code, data or scripts: to be read, not to be run",
    )
    export.add_argument("-r", "--requirements", metavar="FILE", help="the list that was published")
    export.add_argument("--lock", metavar="FILE", help="the lockfile")
    export.add_argument(
        "--target",
        metavar="T",
        help="of those that were published; default: the running interpreter's",
    )
    export.add_argument("--cache", metavar="FOLDER", help="where fetched blocks are kept")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _level(text: str) -> int:
    number = int(text)
    if not 1 <= number <= LEVEL:
        raise argparse.ArgumentTypeError(f"1 to {LEVEL}")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 an error or a problem found, 2 wrong usage."""
    options = parser().parse_args(arguments)
    out, err = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)
    environ = dict(os.environ)
    try:
        url = getattr(options, "shelf", "") or environ.get("CLOUDIMPORT_SHELF") or default_shelf(environ)
        run = _RUN[options.command]
        return run(options, url, environ, out, err)
    except CloudImportError as error:
        for line in str(error).splitlines():
            _say(err, f"shelf: error: {line}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(err, f"shelf: error: {where}{error.strerror or error}")
    except KeyboardInterrupt:
        err.print("shelf: interrupted; nothing half-done is visible, run it again to go on", markup=False)
        return 130
    return 1


def _say(console: Console, text: str) -> None:
    console.print(_printable(text), markup=False)


def _printable(text: str) -> str:
    """Return ``text`` without what steers a terminal: a package's names and metadata are hostile."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


class _Bars:
    """Progress on standard error: a bar a stage on a terminal, a line a stage elsewhere."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description:10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[last]}"),
        )
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._console = console
        self._task = self.progress.add_task("", total=0, last="", visible=False)

    def stage(self, name: str, total: int, what: str = "package") -> None:
        self._task = self.progress.add_task(name, total=total, last="")
        if not self._console.is_terminal:
            self._console.print(f"{name}: {_counted(total, what)}", markup=False)

    def step(self, name: str) -> None:
        self.progress.update(self._task, advance=1, last=name)

    def note(self, text: str) -> None:
        _say(self.progress.console, f"note: {text}")


def _publish(
    options: argparse.Namespace, url: str, environ: dict[str, str], out: Console, err: Console
) -> int:
    targets = tuple(dict.fromkeys(map(Target.parse, options.target))) or tuple(running_targets()[:1])
    if "://" not in url:
        url = os.path.abspath(url)
    said = bool(options.shelf or environ.get("CLOUDIMPORT_SHELF"))
    chosen = {name: getattr(options, name) for name in ("jobs", "level") if getattr(options, name)}
    job = Job(
        requirements=options.requirements,
        shelf=url,
        targets=targets,
        lock=options.lock or options.requirements.parent / LOCK_NAME,
        lock_shelf=url if said else "",
        environ=environ,
        sandbox=options.sandbox,
        recipes=options.recipes,
        **chosen,
    )
    bars = _Bars(err)
    signal.signal(signal.SIGTERM, _interrupt)
    with bars.progress:
        outcomes = publish(job, bars)
    for outcome in outcomes:
        out.print(
            f"{outcome.target}: {len(outcome.built)} published, {len(outcome.present)} were there; "
            f"environment {outcome.index.digest[:12]} ({outcome.index.stored} bytes)",
            markup=False,
        )
    out.print(f"shelf {url}; lockfile {job.lock}", markup=False)
    return 0


def _interrupt(signum: int, frame: object) -> None:
    """End like Ctrl-C: what runs in sandboxes is stopped, temporary folders are removed."""
    raise KeyboardInterrupt


def _ls(options: argparse.Namespace, url: str, environ: dict[str, str], out: Console, err: Console) -> int:
    for pin, target in Shelf(url, environ).builds():
        out.print(f"{pin} {target}", markup=False)
    return 0


def _show(options: argparse.Namespace, url: str, environ: dict[str, str], out: Console, err: Console) -> int:
    for shown in Shelf(url, environ).show(Pin.parse(options.pin)):
        out.print(_card(shown))
    return 0


def _card(shown: Shown) -> Table:
    card = Table(title=Text(f"{shown.pin}  {shown.target}"), show_header=False, title_justify="left")
    wheel = shown.provenance.get("wheel", {})
    rows = {
        "content": shown.content,
        "wheel": f"{wheel.get('name', '')} sha256 {wheel.get('sha256', '')}",
        "files": f"{shown.files}, {shown.size} bytes installed, {shown.stored} stored",
        "modules": f"{shown.modules} with bytecode, {shown.native} native files",
        "order": f"{shown.order}; the lead has {shown.lead_stored} bytes",
        "requires": "\n".join(shown.requires),
    }
    for name, value in rows.items():
        card.add_row(name, Text(_printable(value)))
    return card


def _verify(
    options: argparse.Namespace, url: str, environ: dict[str, str], out: Console, err: Console
) -> int:
    checked, problems = 0, 0

    def count(name: str) -> None:
        nonlocal checked
        checked += 1

    for problem in Shelf(url, environ).verify([Pin.parse(text) for text in options.pins], count):
        problems += 1
        _say(err, f"shelf: {problem}")
    out.print(f"{_counted(checked, 'build')} checked, {_counted(problems, 'problem')}", markup=False)
    return 1 if problems else 0


def _export(
    options: argparse.Namespace, url: str, environ: dict[str, str], out: Console, err: Console
) -> int:
    target = Target.parse(options.target) if options.target else None
    wanted = Wanted(options.requirements, options.lock, options.shelf, options.cache, target, environ)
    bars = _Bars(err)
    signal.signal(signal.SIGTERM, _interrupt)
    with closing(Export(wanted)) as export, bars.progress:
        bars.stage("export", len(export.pins))
        done = export.write(options.folder, options.stubs_only, bars.step)
    _say(
        out,
        f"{export.target}: {_counted(len(export.pins), 'package')}, {_counted(done.files, 'file')} "
        f"({done.size} bytes), {done.shared} of them shared with an earlier export; in {options.folder}",
    )
    return 0


def _trace(options: argparse.Namespace, url: str, environ: dict[str, str], out: Console, err: Console) -> int:
    event = options.event
    if event.startswith("@"):
        event = Path(event[1:]).read_text(encoding="utf-8")
    lock = (options.lock or options.program.parent / LOCK_NAME).absolute()
    said = options.shelf or ""
    status = rehearse.run(
        rehearse.Rehearsal(
            options.program, options.arguments, options.handler, event, lock, said, options.output.absolute()
        ),
        environ,
    )
    if not options.output.exists():
        _say(err, f"shelf: error: {options.program} ended with status {status} and left no trace")
        return 1
    needed = len(Trace.read(options.output).blocks)
    _say(out, f"{options.output}: {_counted(needed, 'block')} needed; now 'shelf boot {options.output}'")
    return status


def _boot(options: argparse.Namespace, url: str, environ: dict[str, str], out: Console, err: Console) -> int:
    made = publish_boot(Trace.read(options.trace), options.lock, url, environ)
    _say(
        out,
        f"{options.lock}: {_counted(made.parts, 'part')}, {_counted(made.ranges, 'request')}, "
        f"{_counted(made.size, 'byte')}",
    )
    return 0


def _mirror(
    options: argparse.Namespace, url: str, environ: dict[str, str], out: Console, err: Console
) -> int:
    bars = _Bars(err)
    signal.signal(signal.SIGTERM, _interrupt)
    with bars.progress:
        done = mirror(
            options.lock or [Path(LOCK_NAME)],
            options.folder,
            url,
            environ,
            lambda total: bars.stage("mirror", total, "object"),
            bars.step,
        )
    _say(
        out,
        f"{options.folder}: {_counted(done.objects, 'object')}, {done.copied} of them copied "
        f"({_counted(done.size, 'byte')})",
    )
    return 0


def _report(
    options: argparse.Namespace, url: str, environ: dict[str, str], out: Console, err: Console
) -> int:
    run = Run.read(options.trace)
    write_file(options.output, page(run))
    _say(
        out,
        f"{options.output}: {_counted(len(run.requests), 'request')}, {_counted(len(run.waits), 'wait')}, "
        f"{_counted(len(run.imports), 'import')}",
    )
    return 0


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


_RUN = {
    "publish": _publish,
    "ls": _ls,
    "show": _show,
    "verify": _verify,
    "export": _export,
    "trace": _trace,
    "boot": _boot,
    "mirror": _mirror,
    "report": _report,
}
