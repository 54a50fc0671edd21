"""Small shelves out of dicts of files, made in this process: no index, no sandbox, real format."""

from __future__ import annotations

import importlib.util
import marshal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloudimport.format.records import Ref, sha256
from cloudimport.ids import Pin, Target, running_targets
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.builds import point, upload
from shelf_tools.collect import code_file
from shelf_tools.environments import open_shelf, publish_environment, write_lock
from shelf_tools.indexing import Built
from shelf_tools.order import arrange
from shelf_tools.pack import pack
from shelf_tools.scan import scan
from shelf_tools.store import Store, open_store

Files = Mapping[str, str | bytes]


def write_tree(root: Path, files: Files) -> Path:
    """Write ``files`` below ``root`` and return it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        if name.startswith("bin/"):
            path.chmod(0o755)
    return root


def metadata(name: str, version: str, requires: Sequence[str] = (), entry_points: str = "") -> dict[str, str]:
    """Return the dist-info files of a distribution."""
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    lines = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        *(f"Requires-Dist: {r}\n" for r in requires),
    ]
    files = {f"{folder}/METADATA": "".join(lines), f"{folder}/INSTALLER": "cloudimport\n"}
    if entry_points:
        files[f"{folder}/entry_points.txt"] = entry_points
    return files


def compile_tree(tree: Path, code: Path) -> None:
    """Compile every source of ``tree`` as the installer does."""
    for path in sorted(tree.rglob("*.py")):
        relative = path.relative_to(tree).as_posix()
        out = code_file(code, relative)
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            compiled = compile(path.read_bytes(), relative, "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError):
            continue
        out.write_bytes(marshal.dumps(compiled))


@dataclass
class MadeShelf:
    """A shelf at ``url``, filled by ``add``; work files lie below ``work``."""

    work: Path
    url: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    target: Target = field(default_factory=lambda: running_targets()[0])
    level: int = 3

    def __post_init__(self) -> None:
        self.url = self.url or str(self.work / "shelf")
        self.store: Store = open_store(self.url, self.environ)
        self.source: Source = open_source(self.url, SourceConfig(environ=self.environ))
        self.builds: dict[Pin, Built] = {}
        open_shelf(self.store)

    def add(
        self,
        name: str,
        version: str,
        files: Files,
        *,
        opened: Sequence[tuple[str, bool]] = (),
        with_metadata: bool = True,
        requires: Sequence[str] = (),
        entry_points: str = "",
        bytecode: bool = True,
        follow: Mapping[str, Sequence[str]] | None = None,
        imports: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    ) -> Built:
        """Publish one build of ``files``; ``opened`` is its trace: (path, whether bytecode)."""
        pin = Pin.of(name, version)
        folder = self.work / f"{name}-{version}-{len(list(self.work.iterdir()))}"
        extra = metadata(name, version, requires, entry_points) if with_metadata else {}
        tree = write_tree(folder / "tree", {**files, **extra})
        code = folder / "code"
        if bytecode:
            compile_tree(tree, code)
        content = scan(tree, pin, self.target)
        compiled = [f.path for f in content.files if code_file(code, f.path).is_file()]
        order = arrange(content, compiled, opened, ())
        magic = importlib.util.MAGIC_NUMBER.hex() if compiled else ""
        after = {name: tuple(paths) for name, paths in (follow or {}).items()}
        graph = {
            path: {other: tuple(paths) for other, paths in by.items()} for path, by in (imports or {}).items()
        }
        packs = folder / "packs"
        packs.mkdir()
        digest = sha256(content.encode())
        packed = pack(content, digest, tree, code, magic, order, after, graph, packs, self.level)
        provenance = {"format": 1, "kind": "provenance", "published": 0}
        built, pointer = upload(self.store, self.source, content, packed, provenance)
        self.builds[pin] = point(self.store, self.source, built, pointer)
        return self.builds[pin]

    def environment(self, *pins: str) -> Ref:
        """Publish the environment of ``pins`` (by default all), write requirements and lock."""
        wanted = [Pin.parse(pin) for pin in pins] or list(self.builds)
        lines = sorted(map(str, wanted))
        warnings: list[str] = []
        ref = publish_environment(
            self.store, self.source, lines, self.target, [self.builds[p] for p in wanted], warnings.append
        )
        self.warnings = warnings
        self.requirements.write_text("".join(line + "\n" for line in lines))
        self.lock.unlink(missing_ok=True)
        write_lock(self.lock, self.url, lines, {str(self.target): ref})
        return ref

    @property
    def requirements(self) -> Path:
        """The requirements file that ``environment`` writes."""
        return self.work / "requirements.txt"

    @property
    def lock(self) -> Path:
        """The lockfile that ``environment`` writes."""
        return self.work / "cloudimport.lock"
