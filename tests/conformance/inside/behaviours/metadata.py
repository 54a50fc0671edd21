"""``importlib.metadata`` of one distribution, and of all of them together."""

import importlib.metadata as metadata
import sys

from behaviours.record import digest, spread


def distribution(subject, record):
    """Version, metadata, requirements, files with sizes and hashes, texts."""
    record.check("version", metadata.version, subject.name)
    record.check("requires", metadata.requires, subject.name)
    record.check("metadata", lambda: sorted(map(list, metadata.metadata(subject.name).items())))
    found = metadata.distribution(subject.name)
    record.check("location", lambda: str(found.locate_file("x/y")))
    for name in ("METADATA", "WHEEL", "top_level.txt", "entry_points.txt", "no-such-file"):
        record.check("text " + name, lambda name=name: _digest(found.read_text(name)))
    made = {"bin/" + e.name for e in found.entry_points if e.group in ("console_scripts", "gui_scripts")}
    files = [f for f in found.files or () if f.name not in _INSTALLERS_OWN and str(f) not in made]
    files.sort(key=str)
    record.check("files", lambda: sorted(_describe(file, made) for file in found.files or ()))
    # By a digest of the name: what one side has more of does not move the others.
    for file in sorted(files, key=lambda file: digest(str(file)).partition(":")[2])[:30]:
        record.check(f"file {file}", _located, file)


#: Who has installed it says that here, so its bytes differ; that the file is there is compared.
_INSTALLERS_OWN = ("INSTALLER", "RECORD")


def _digest(text):
    return None if text is None else digest(text)


def _describe(file, made):
    if file.name in _INSTALLERS_OWN and file.parent.suffix == ".dist-info":
        return [str(file), None, None]
    if str(file) in made or _names_interpreter(file):
        # A launcher, which each installer words in its own way, or a script whose first line it has written.
        return [str(file), None, None]
    return [str(file), file.size, file.hash and f"{file.hash.mode}={file.hash.value}"]


def _names_interpreter(file):
    if not str(file).startswith("bin/") or not file.locate().is_file():
        return False
    return file.read_binary().startswith(b"#!" + sys.executable.encode())


def _located(file):
    return [str(file.locate()), file.locate().is_file(), digest(file.read_binary())]


def entry_points(subject, record):
    """The distribution's entry points, and what they load."""
    found = sorted(metadata.distribution(subject.name).entry_points, key=lambda e: (e.group, e.name, e.value))
    record.value("all", [[e.group, e.name, e.value, list(e.extras)] for e in found])
    for entry in spread(found, 40):
        record.check(f"{entry.group} {entry.name}", lambda entry=entry: _loaded(entry.load()))


def _loaded(thing):
    return [type(thing).__name__, getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)]


def environment(subject, record):
    """All distributions, all entry points, and the distributions of each import name."""
    record.check("distributions", lambda: sorted([d.name, d.version] for d in metadata.distributions()))
    found = record.check("packages_distributions", metadata.packages_distributions)
    record.value("import names", len(found or ()))
    groups = metadata.entry_points()
    names = groups.groups if hasattr(groups, "groups") else groups
    for group in sorted(names):
        chosen = metadata.entry_points(group=group)
        record.value(f"group {group}", sorted([e.name, e.value] for e in chosen))
