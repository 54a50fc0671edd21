"""Files of the site tree appear when Python asks for them: function-level, no audit hook.

The functions by which Python code opens, stats and lists are replaced by wrappers that first make
sure that a path in the tree is there; so are functions of the standard library whose C code opens
a path that Python hands to it (``sqlite3.connect``, ``ctypes.CDLL``, a child's program). Other C
code that opens by itself sees what is materialised, and a loud ENOENT for the rest.

Import budget: ``os``, ``sys``, ``io``, ``importlib``.
"""

from __future__ import annotations

import sys
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from types import ModuleType

from cloudimport.site.paths import Paths
from cloudimport.site.tree import SiteTree
from cloudimport.site.wrappers import (
    Chdir,
    Command,
    Connect,
    ForkExec,
    Link,
    Listdir,
    Move,
    Open,
    Remove,
    Run,
    Scandir,
    Stat,
    Wrapper,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

#: What is replaced at once, in modules that every interpreter has loaded.
_FUNCTIONS: dict[str, dict[type[Wrapper], str]] = {
    "builtins": {Open: "open"},
    "io": {Open: "open", Wrapper: "open_code"},
    "os": {
        Wrapper: "open access chmod chown truncate utime mkdir readlink statvfs pathconf "
        "getxattr listxattr setxattr removexattr",
        Stat: "stat lstat",
        Remove: "unlink remove rmdir",
        Move: "rename replace",
        Link: "link symlink",
        Chdir: "chdir fchdir",
        Listdir: "listdir",
        Scandir: "scandir",
        Run: "execv execve posix_spawn posix_spawnp",
        Command: "system",
    },
}
#: What is replaced in a module of the standard library once that is loaded: its own name for a
#: function first, then that of the C module below, for those who use it directly.
_LATER: dict[str, tuple[tuple[type[Wrapper], str, str], ...]] = {
    "ctypes": ((Wrapper, "_ctypes", "dlopen"),),
    "sqlite3": ((Connect, "_sqlite3", "connect"),),
    "subprocess": ((ForkExec, "_posixsubprocess", "fork_exec"),),
}
#: Classes of the standard library that capture them: pathlib of 3.10; glob of 3.13 and later.
_CAPTURING_CLASSES = (
    ("pathlib", "_NormalAccessor"),
    ("glob", "_Globber"),
    ("glob", "_GlobberBase"),
    ("glob", "_StringGlobber"),
)
#: These keep the originals: they are the machinery below us.
_UNTOUCHED = frozenset({"posix", "_io", "_frozen_importlib_external"})


class Patches:
    """Replaces and restores; one tree at a time."""

    def __init__(self, tree: SiteTree) -> None:
        self._paths = Paths(tree)
        self._wrappers: dict[int, tuple[Any, Wrapper]] = {}
        #: (class, name of an attribute, what it had itself or None, what it has)
        self._attributes: list[tuple[type, str, Any, Any]] = []

    def install(self) -> None:
        """Replace the functions, wherever a loaded module has them, and two methods of importlib."""
        for module_name, kinds in _FUNCTIONS.items():
            for kind, names in kinds.items():
                for name in names.split():
                    self._wrap(kind, module_name, name)
        for module_name in self.later():
            if module_name in sys.modules:
                self._wrap_later(module_name)
        _replace(self._wrappers, list(sys.modules))
        self._attributes += _replace_captured(self._wrappers)
        # A loader that others make for a file of the tree (spec_from_file_location) looks by itself.
        for loader in (SourceFileLoader.__mro__[1], ExtensionFileLoader):
            self._before_method(loader, "__init__", ("path",))

    def uninstall(self) -> None:
        """Put every original back, also where it was captured meanwhile."""
        for owner, name, original, ours in reversed(self._attributes):
            if vars(owner).get(name) is ours:
                if original is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, original)
        originals = {id(wrapper): (wrapper, original) for original, wrapper in self._wrappers.values()}
        _replace(originals, list(sys.modules))
        _replace_captured(originals)
        self._paths.stop()

    def later(self) -> dict[str, Callable[[ModuleType], None]]:
        """Return names of modules to watch for, with what to call when one was loaded."""
        return dict.fromkeys((*_LATER, "ssl"), self._loaded)

    def _loaded(self, module: ModuleType) -> None:
        wrapped = set(self._wrappers)
        self._wrap_later(module.__name__)
        for _, below, _ in _LATER.get(module.__name__, ()):
            _replace({k: pair for k, pair in self._wrappers.items() if k not in wrapped}, _run_since(below))

    def _wrap_later(self, module_name: str) -> None:
        for kind, below, name in _LATER.get(module_name, ()):
            self._wrap(kind, below, name)
        context = getattr(sys.modules.get("ssl"), "SSLContext", None)
        if module_name == "ssl" and context is not None:
            self._before_method(context, "load_verify_locations", ("cafile", "capath"))
            self._before_method(context, "load_cert_chain", ("certfile", "keyfile"))

    def _wrap(self, kind: type[Wrapper], module_name: str, name: str) -> None:
        original = getattr(sys.modules.get(module_name), name, None)
        if original is not None and id(original) not in self._wrappers:
            self._wrappers[id(original)] = (original, kind(original, module_name, self._paths))

    def _before_method(self, owner: type, name: str, parameters: tuple[str, ...]) -> None:
        """Make files be there that a method is given, as its last parameters, by position or name."""
        inherited, own, paths = getattr(owner, name), vars(owner).get(name), self._paths
        skip = 2 if name == "__init__" else 1  # self; for a loader also the module's name

        def method(*args: Any, **kwargs: Any) -> Any:
            for path in (*args[skip : skip + len(parameters)], *map(kwargs.get, parameters)):
                if path is not None and (path.__class__ is not str or paths.mark in path or paths.inside):
                    paths.there(path)
            return inherited(*args, **kwargs)

        method.__wrapped__ = inherited  # type: ignore[attr-defined]
        method.__name__, method.__qualname__, method.__doc__ = name, inherited.__qualname__, inherited.__doc__
        setattr(owner, name, method)
        self._attributes.append((owner, name, own, method))


def _run_since(loaded: str) -> list[str]:
    """Return the names of modules that have run since another one was loaded: they may have some of it."""
    names = list(sys.modules)
    before = names.index(loaded) if loaded in names else len(names)
    return [name for name in names[:before] if _is_running(name)] + names[before:]


def _is_running(module_name: str) -> bool:
    if module_name == "__main__":
        return True
    return getattr(_names(module_name).get("__spec__"), "_initializing", False) is True


def _names(module_name: str) -> dict[str, Any]:
    """Return what a loaded module has, without having a lazy one be loaded."""
    try:
        names = object.__getattribute__(sys.modules[module_name], "__dict__")
    except (KeyError, AttributeError):
        return {}
    return names if type(names) is dict else {}


def _replace(values: dict[int, tuple[Any, Any]], modules: list[str]) -> None:
    """Put each second of ``values`` where a loaded module has the first, by whatever name."""
    for module_name in modules:
        if module_name in _UNTOUCHED or module_name.startswith("cloudimport"):
            continue
        names = _names(module_name)
        for name in [name for name, value in list(names.items()) if id(value) in values]:
            found = values[id(names[name])]
            if found[0] is names[name]:
                names[name] = found[1]


def _replace_captured(values: dict[int, tuple[Any, Any]]) -> list[tuple[type, str, Any, Any]]:
    """Do the same in classes that are known for it; returns (class, name, what it had, what it has)."""
    done: list[tuple[type, str, Any, Any]] = []
    for module_name, class_name in _CAPTURING_CLASSES:
        owner: Any = getattr(sys.modules.get(module_name), class_name, None)
        for name, captured in list(vars(owner).items()) if owner else ():
            plain = captured.__func__ if isinstance(captured, staticmethod) else captured
            if id(plain) in values and values[id(plain)][0] is plain:
                setattr(owner, name, values[id(plain)][1])
                done.append((owner, name, captured, values[id(plain)][1]))
    return done
