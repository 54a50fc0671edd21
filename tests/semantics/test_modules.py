"""Modules: what they know of themselves, and what others see of them."""

from __future__ import annotations

import io
import os
import zipfile

from tests.semantics.conftest import INSTALL, World
from tests.support.shelves import MadeShelf


def test_attributes(world: World) -> None:
    """A module's `__file__`, `__path__`, `__cached__`, `__package__`, `__doc__` and `__spec__` are those
    that it would have in site-packages, with the site tree's root in its place.
    """
    world.both("""
        import importlib, importlib.util
        for name in ("demo", "demo.sub", "demo.sub.late", "single", "demo.__main__", "nsp", "nsp.a"):
            if name == "demo.__main__":
                spec = importlib.util.find_spec(name)
            else:
                module = importlib.import_module(name)
                spec = module.__spec__
                print(name, getattr(module, "__file__", None), list(getattr(module, "__path__", [])))
                print(getattr(module, "__cached__", None), module.__package__, module.__doc__)
            print(spec.name, spec.origin, spec.cached, spec.has_location, spec.parent)
            print(list(spec.submodule_search_locations or []))
    """)


def test_loader(world: World) -> None:
    """A module's loader is a `SourceFileLoader` (or the one for its kind) with the full interface:
    `get_code`, `get_source`, `get_data`, `get_filename`, `is_package`, `path`, `name`.
    """
    world.both("""
        import demo, demo.sub.late, importlib.machinery as m
        for module in (demo, demo.sub, demo.sub.late):
            loader = module.__loader__
            print(isinstance(loader, m.SourceFileLoader), loader.path, loader.name)
            name = module.__name__
            print(loader.get_filename(name), loader.is_package(name), loader.get_code(name).co_filename)
            print(repr(loader.get_source(name)))
        print(demo.__loader__.get_data(os.path.join(demo.__path__[0], "data", "x.txt")))
        try:
            demo.__loader__.get_data(os.path.join(demo.__path__[0], "missing"))
        except OSError as error:
            print(type(error), error.filename)
    """)


def test_source(world: World) -> None:
    """`inspect.getsource`, `getsourcefile`, `getfile` and `linecache` find the source of modules, classes
    and functions, and `co_filename` is `__file__`.
    """
    world.both("""
        import inspect, linecache, demo
        print(inspect.getsource(demo.fail), inspect.getsource(demo.Thing), inspect.getsource(demo)[:10])
        print(inspect.getfile(demo.Thing), inspect.getsourcefile(demo.Thing), inspect.getdoc(demo.Thing))
        print(demo.fail.__code__.co_filename == demo.__file__, linecache.getline(demo.__file__, 8))
        print(demo.Thing.method.__code__.co_filename == demo.__file__)
    """)


def test_traceback(world: World) -> None:
    """A traceback shows the source line of each frame."""
    text = world.both("""
        import traceback, demo
        try:
            demo.fail()
        except ValueError:
            print(traceback.format_exc())
    """)
    assert "# the line of fail" in text


def test_uncaught(world: World) -> None:
    """The traceback of an uncaught exception shows source lines as well."""
    ran = world.start("import demo\ndemo.fail()")
    assert ran.returncode == 1
    assert "# the line of fail" in ran.stderr


def test_warnings(world: World) -> None:
    """A warning names the package's file and line, and shows the line."""
    ran = world.start("import demo\ndemo.warn()")
    assert (
        'demo/__init__.py:12: UserWarning: careful\n  warnings.warn("careful")  # the line of warn'
        in ran.stderr
    )


def test_syntax_error(world: World) -> None:
    """A module that does not compile is a `SyntaxError` with its file, line and text."""
    world.both("""
        try:
            import demo.broken
        except SyntaxError as error:
            print(error.filename, error.lineno, error.text)
    """)


def test_missing(world: World) -> None:
    """A module that the environment does not have is the usual `ModuleNotFoundError`, also inside a package
    that it has.
    """
    world.both("""
        for name in ("nowhere_to_be_found", "demo.nowhere", "nsp.nowhere", "single.x"):
            try:
                __import__(name)
            except ModuleNotFoundError as error:
                print(error, error.name, error.path)
    """)


def test_reload(world: World) -> None:
    """`importlib.reload` runs a module again in the same object; if the process has changed the module's
    file, it runs what stands there now.
    """
    world.both("""
        import importlib, demo
        demo.x = 5
        again = importlib.reload(demo)
        print(again is demo, demo.x)
        path = os.path.join(os.path.dirname(demo.__file__), "raises.py")
        import demo.raises
        before = open(path).read()
        with open(path, "w") as file:
            file.write("fine = 'changed, and longer than it was before by some characters'")
        importlib.reload(demo.raises)
        print(demo.raises.fine, demo.raises.__loader__.get_source("demo.raises"))
        with open(path, "w") as file:
            file.write(before)
    """)


def test_find_spec(world: World) -> None:
    """`importlib.util.find_spec` finds without importing."""
    world.both("""
        import importlib.util
        spec = importlib.util.find_spec("demo")
        print(spec.origin, "demo" in sys.modules)
        print(importlib.util.find_spec("nowhere_to_be_found"), importlib.util.find_spec("nsp").origin)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        print(module.x, "demo" in sys.modules)
    """)


def test_lazy_loader(world: World) -> None:
    """`importlib.util.LazyLoader` puts off a module's execution until it is used."""
    world.both("""
        import importlib.util
        spec = importlib.util.find_spec("demo")
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = importlib.util.module_from_spec(spec)
        sys.modules["demo"] = module
        spec.loader.exec_module(module)
        print("x" in object.__getattribute__(module, "__dict__"), module.x, module.__file__)
    """)


def test_runpy(world: World) -> None:
    """`runpy.run_module` and `run_path` run modules, files and folders of packages."""
    world.both("""
        import runpy, demo
        print(runpy.run_module("demo.script", run_name="as")["value"])
        print(runpy.run_path(os.path.join(demo.__path__[0], "script.py"))["value"])
        sys.argv[1:] = ["a"]
        runpy.run_module("demo", run_name="__main__", alter_sys=True)
        runpy.run_path(demo.__path__[0], run_name="__main__")
    """)


def test_own_loader(world: World) -> None:
    """Code that loads a file of its package by path (`spec_from_file_location`, `SourceFileLoader`, a zip
    archive on `sys.path`) gets it.
    """
    world.both("""
        import importlib.machinery, importlib.util, demo
        path = os.path.join(os.path.dirname(demo.__file__), "script.py")
        spec = importlib.util.spec_from_file_location("scripted", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        print(module.value, module.__file__, module.__name__)
        late = os.path.join(os.path.dirname(demo.__file__), "raises.py")
        print(importlib.machinery.SourceFileLoader("other", late).load_module().fine)
        sys.path.append(os.path.join(os.path.dirname(demo.__file__), "data", "archive.zip"))
        import inzip
        print(inzip.where)
    """)


def test_archive_before_all(world: World) -> None:
    """A zip archive of a package at the head of `sys.path` is fetched when it is first asked for a module,
    also by what the fetch itself imports.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inzip.py", "x = 42\n")
        file.writestr("large.bin", os.urandom(3_000_000))  # several blocks, by several threads
    (world.folder / "made").mkdir()
    shelf = MadeShelf(world.folder / "made")
    shelf.add("thing", "1", {"thing/__init__.py": "", "thing/archive.zip": archive.getvalue()})
    shelf.environment()
    out = world.run(
        """
        print("threading" in sys.modules)
        sys.path.insert(0, ROOT + "/thing/archive.zip")
        import inzip
        print(inzip.x)
        """,
        prelude=INSTALL.format(lock=str(shelf.lock), cache=str(world.cache)),
    )
    assert out == "False\n42"


def test_pkgutil(world: World) -> None:
    """`pkgutil.iter_modules` and `walk_packages` list a package's modules, and `iter_modules()`
    all; that materialises nothing.
    """
    out = world.run("""
        import pkgutil, demo
        before = cloudimport.stats()["files_written"]
        print(len(list(pkgutil.iter_modules(demo.__path__))), cloudimport.stats()["files_written"] - before)
    """)
    assert out == "6 0"
    world.both(
        """
        import pkgutil, demo, nsp
        print(sorted((i.name, i.ispkg) for i in pkgutil.iter_modules(demo.__path__)))
        names = [i.name for i in pkgutil.walk_packages(demo.__path__, "demo.", onerror=lambda name: None)]
        print(sorted(names), sorted(i.name for i in pkgutil.iter_modules(nsp.__path__, "nsp.")))
        ours = [i for i in pkgutil.iter_modules([ROOT])]
        print(sorted((i.name, i.ispkg, i.module_finder.path) for i in ours))
        everything = {i.name for i in pkgutil.iter_modules()}
        print(sorted({"demo", "single", "left", "nsp"} & everything))
        print(pkgutil.resolve_name("demo.sub.late:Thing").__name__)
    """
    )


def test_pickle(world: World) -> None:
    """Objects of its classes pickle, copy and compare like any others'."""
    world.both("""
        import copy, pickle, demo, typing
        thing = demo.Thing()
        print(type(pickle.loads(pickle.dumps(thing))) is demo.Thing, type(copy.deepcopy(thing)) is demo.Thing)
        print(typing.get_type_hints(demo.Thing.method))
    """)


def test_optimised(world: World) -> None:
    """Under `python -O` and `-OO` modules are compiled for it: no asserts, no docstrings."""
    code = "import demo\nprint(demo.__doc__, demo.x, demo.sub if 0 else '')"
    for flag, expected in (("", "A demo. 1"), ("1", "A demo. 1"), ("2", "None 1")):
        assert world.run(code, env={"PYTHONOPTIMIZE": flag}) == expected


def test_written_module(world: World) -> None:
    """A module that a program writes into a package's folder, or into the root, can be imported."""
    world.both("""
        import importlib, demo
        for path, name in ((demo.__path__[0] + "/made_x.py", "demo.made_x"), (ROOT + "/made_top.py",
            "made_top")):
            with open(path, "w") as file:
                file.write("made = __file__")
            importlib.invalidate_caches()
            print(importlib.import_module(name).made)
            os.remove(path)
    """)


def test_pth(world: World) -> None:
    """A `.pth` file that a package brings is never executed; it lies there as data."""
    out = world.run("""
        import demo, subprocess
        child = "import sys; print(hasattr(sys, 'pth_ran'))"
        print(hasattr(sys, "pth_ran"), subprocess.check_output([sys.executable, "-c", child],
            text=True).strip())
        print(open(os.path.join(ROOT, "demo-evil.pth")).read().split(";")[0])
    """)
    assert out == "False False\nimport sys"


def test_failed_import(world: World) -> None:
    """An import that failed leaves nothing in `sys.modules` and can be tried again."""
    world.both("""
        os.environ["DEMO_RAISES"] = "1"
        try:
            import demo.raises
        except RuntimeError as error:
            print(error, "demo.raises" in sys.modules)
        del os.environ["DEMO_RAISES"]
        import demo.raises
        print(demo.raises.fine)
    """)


def test_failed_fetch(world: World) -> None:
    """When the shelf cannot be read the import raises an `ImportError` of ours, never
    `ModuleNotFoundError`; once it can be read again the import succeeds.
    """
    out = world.run("""
        import pathlib
        packs = list(pathlib.Path(env.shelf.partition("://")[2]).glob("packages/single*/**/pack-*"))
        packs += list(pathlib.Path(env.shelf.partition("://")[2]).glob("packages/demo/**/pack-*"))
        for pack in packs:
            pack.rename(str(pack) + ".away")
        try:
            import single
        except ModuleNotFoundError:
            print("not found")
        except ImportError as error:
            print(isinstance(error, cloudimport.FetchError), "demo" in str(error))
        finally:
            for pack in packs:
                pathlib.Path(str(pack) + ".away").rename(pack)
        import single
        print(os.path.basename(single.me))
    """)
    assert out == "True True\nsingle.py"
