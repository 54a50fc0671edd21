"""Files: what Python code, and C code, sees below a package's folder."""

from __future__ import annotations

import importlib.util
import os

from tests.semantics.conftest import INSTALL, World
from tests.support.shelves import MadeShelf


def test_open(world: World) -> None:
    """A data file is opened, read, mapped and copied by its path, by all of the standard library's ways, as
    `str`, `bytes` or `os.PathLike`.
    """
    world.both("""
        import codecs, io, mmap, pathlib, shutil, zipfile, linecache, tokenize, demo, fileinput, tempfile
        base = os.path.dirname(demo.__file__)
        print(open(base + "/data/x.txt").read(), open(file=base + "/sub/text.txt", mode="rb").read())
        print(io.open(os.fsencode(base + "/data/nested/y.txt")).read(), codecs.open(base + "/stub.pyi",
            encoding="utf8").read())
        print(pathlib.Path(base, "data/table.csv").read_text(), pathlib.Path(base,
            "script.py").open().readline())
        with open(base + "/large.bin", "rb") as file, mmap.mmap(file.fileno(), 0,
            prot=mmap.PROT_READ) as mapped:
            print(len(mapped), mapped[255])
        fd = os.open(base + "/data/db.sqlite", os.O_RDONLY)
        print(os.read(fd, 6),
            os.fstat(fd).st_size == os.stat(fd).st_size == os.path.getsize(base + "/data/db.sqlite"))
        print(open(fd, "rb").read(5))
        with zipfile.ZipFile(base + "/data/archive.zip") as archive:
            print(archive.read("text.txt"))
        print(tokenize.open(base + "/tests/test_demo.py").readline(), linecache.getline(base + "/raises.py",
            1))
    """)


def test_open_from_below(world: World) -> None:
    """`shutil`, `sqlite3` (by path or URI) and `ssl` find files that nobody has touched before."""
    world.both("""
        import shutil, sqlite3, demo, ssl
        base = os.path.dirname(demo.__file__)
        print(sqlite3.connect(base + "/data/db.sqlite").execute("select x from t").fetchall())
        print(os.path.basename(shutil.copy(base + "/data/x.txt", "copied.txt")), open("copied.txt").read())
        try:
            ssl.create_default_context(cafile=base + "/data/table.csv")
        except ssl.SSLError as error:
            print("no certificates in it")
    """)
    world.both("""
        import sqlite3, demo
        path = os.path.dirname(demo.__file__) + "/data/db.sqlite"
        print(sqlite3.connect(f"file:{path}?mode=ro", uri=True).execute("select x from t").fetchall())
    """)


def test_stat(world: World) -> None:
    """`os.stat`, `os.access`, `os.path.exists`, `isfile`, `isdir`, `getsize` and `pathlib` say of each file
    and folder, touched or not, what they would say under pip.
    """
    world.both("""
        import pathlib, stat, demo
        base = os.path.dirname(demo.__file__)
        for name in ("data/x.txt", "data/nested", "data/nested/y.txt", "large.bin", "nothing", "sub/late.py",
            "data/empty", ""):
            path = os.path.join(base, name)
            print(name, os.path.exists(path), os.path.isfile(path), os.path.isdir(path), os.access(path,
                os.R_OK))
            print(os.path.lexists(path), os.path.islink(path), os.path.realpath(path),
                pathlib.Path(path).is_file())
            if os.path.isfile(path):
                print(os.path.getsize(path), stat.S_ISREG(os.stat(path).st_mode), os.lstat(path=path).st_size)
                print(oct(pathlib.Path(path).stat().st_mode))
    """)


def test_modes(world: World) -> None:
    """Scripts in `bin/` are executable and run under this interpreter."""
    out = world.run("""
        import subprocess
        tool = os.path.join(ROOT, "bin", "demo-tool")
        print(subprocess.check_output([tool], text=True).strip(), os.access(tool, os.X_OK),
            open(tool).readline()[2:].strip() == sys.executable)
    """)
    assert out == "tool True True"


def test_list(world: World) -> None:
    """`os.listdir`, `os.scandir`, `os.walk`, `os.fwalk`, `glob` and `pathlib` list every file and folder of
    a package, the ones that are not materialised too.
    """
    world.both("""
        import glob, pathlib, demo
        base = os.path.dirname(demo.__file__)
        def plain(names):
            return sorted(os.fsdecode(n).replace(base,
                "") for n in names if "__pycache__" not in os.fsdecode(n))
        print(plain(os.listdir(base)), plain(os.listdir(os.fsencode(base))),
            plain(os.listdir(pathlib.Path(base))))
        with os.scandir(base) as entries:
            found = sorted((e.name, e.path, os.fspath(e), e.is_dir(), e.is_file(), e.is_symlink(),
                e.is_file(follow_symlinks=False)) for e in entries if e.name != "__pycache__")
        print(found)
        print([(e.name, e.stat().st_size) for e in sorted(os.scandir(base),
            key=lambda e: e.name) if e.is_file()])
        for folder, folders, files in sorted(os.walk(base)):
            print(folder, plain(folders), plain(files)) if "__pycache__" not in folder else None
        lines = []
        for folder, folders, files, fd in os.fwalk(base):
            sizes = [os.stat(name, dir_fd=fd).st_size for name in sorted(files)]
            lines.append((folder, plain(folders), plain(files),
                sizes)) if "__pycache__" not in folder else None
        print(sorted(lines))
        for pattern in ("*.py", "**/*.txt", "data/*", "*/*.py", "data/nested/y.txt", "d*/n*/*"):
            print(pattern, plain(glob.glob(os.path.join(base, pattern), recursive=True)))
            print(plain(map(str, pathlib.Path(base).glob(pattern))), plain(map(str,
                pathlib.Path(base).rglob(pattern))))
        print(plain(map(str, pathlib.Path(base).iterdir())), plain(glob.glob("*.py", root_dir=base)))
        fd = os.open(base, os.O_RDONLY)
        print(plain(os.listdir(fd)), plain(e.name for e in os.scandir(fd)), open(os.open("stub.pyi",
            os.O_RDONLY, dir_fd=fd)).read())
    """)


def test_scan(world: World) -> None:
    """Who lists a folder of more than 64 entries and asks about what is below, as libraries do that look for
    plug-ins and data sets, is told without a file being fetched; what he opens is.
    """
    shelf = MadeShelf(world.folder / "made")
    files = {f"wide/data/{at}/large.bin": bytes([at]) * 20_000 for at in range(80)}
    shelf.add("wide", "1", {"wide/__init__.py": "", **files})
    shelf.environment()
    out = world.run(
        """
        import wide
        data, before = os.path.dirname(wide.__file__) + "/data", cloudimport.stats()
        found = [f"{data}/{name}/large.bin" for name in os.listdir(data)]
        print(len(found), all(map(os.path.isfile, found)), {os.path.getsize(path) for path in found})
        print(cloudimport.stats()["files_written"] - before["files_written"])
        print(open(data + "/7/large.bin", "rb").read(2), os.path.isfile(data + "/7/large.bin"))
        print(cloudimport.stats()["files_written"] - before["files_written"])
        """,
        prelude=INSTALL.format(lock=str(shelf.lock), cache=str(world.cache)),
    )
    assert out == "80 True {20000}\n0\nb'\\x07\\x07' True\n1"


def test_list_root(world: World) -> None:
    """The site tree's root lists the environment's top-level files and folders."""
    out = world.both("""
        print(sorted(n for n in os.listdir(ROOT) if n != "__pycache__"))
        print(sorted(e.name for e in os.scandir(ROOT) if e.is_file()))
    """)
    assert "demo-1.2.dist-info" in out


def test_copytree(world: World) -> None:
    """`shutil.copytree` copies a whole package, and the copy runs."""
    world.both("""
        import filecmp, shutil, demo, subprocess
        shutil.rmtree("copy", ignore_errors=True)
        shutil.copytree(os.path.dirname(demo.__file__), "copy/demo",
            ignore=shutil.ignore_patterns("__pycache__"))
        print(sorted(os.path.join(f, n) for f, _, names in os.walk("copy") for n in names))
        print(open("copy/demo/large.bin", "rb").read() == open(os.path.dirname(demo.__file__) + "/large.bin",
            "rb").read())
        print(subprocess.check_output([sys.executable, "-c", "import demo; print(demo.x, demo.__file__)"],
            cwd="copy", text=True).replace(os.getcwd(), ""))
    """)


def test_relative_paths(world: World) -> None:
    """After `os.chdir` into a package relative paths work; so do paths with `..` in them, relative paths
    from outside, and paths from the descriptor of a folder.
    """
    world.both("""
        import glob, demo
        base = os.path.dirname(demo.__file__)
        print(open(base + "/sub/../data/./x.txt").read(), open(base + "//data//nested/y.txt").read())
        print(open(os.path.relpath(base + "/data/table.csv")).read())
        start = os.getcwd()
        os.chdir(base)
        print(open("stub.pyi").read(), os.path.exists("data/empty"), sorted(set(os.listdir("data"))),
            os.path.getsize("large.bin"))
        os.chdir("sub")
        print(open("text.txt").read(), sorted(n for n in os.listdir() if n != "__pycache__"),
            glob.glob("../data/*.csv"))
        os.chdir(start)
        print(os.path.exists("stub.pyi"))
    """)


def test_symlinked_cache(world: World) -> None:
    """A cache folder may be a symbolic link, and a path through the link is as good as `__file__`."""
    (world.folder / "real").mkdir(mode=0o700)
    (world.folder / "link").symlink_to(world.folder / "real")
    out = world.run(
        """
        import demo
        inside = os.path.relpath(demo.__file__, os.path.realpath("../link"))
        print(open(os.path.join("../link", os.path.dirname(inside), "data/x.txt")).read(),
            "real" in demo.__file__)
        """,
        prelude=world.install(cache=str(world.folder / "link")),
    )
    assert out == "x\n True"


def test_written_data(world: World) -> None:
    """A program can write into a package's folder, over its files too, rename, make folders and remove: it
    sees what it did. The next process finds the package's own files whole again, and what else was written.
    """
    world.both("""
        import pathlib, demo
        base = pathlib.Path(demo.__file__).parent
        (base / "sub/new").mkdir()
        (base / "sub/new/made.txt").write_text("made")
        (base / "data/x.tmp").write_text("replaced")
        before = (base / "data/x.txt").read_text()
        os.replace(base / "data/x.tmp", base / "data/x.txt")
        print((base / "data/x.txt").read_text(), demo.__loader__.get_data(str(base / "data/x.txt")))
        os.remove(base / "stub.pyi")
        print((base / "stub.pyi").exists(), "stub.pyi" in os.listdir(base))
        (base / "stub.pyi").write_text("x: int\\n")
        (base / "data/x.txt").write_text(before)
        (base / "sub/new/made.txt").unlink()
        (base / "sub/new").rmdir()
        (pathlib.Path(ROOT) / "left" / "beside.txt").write_text("left is not imported")
        print(sorted(n for n in os.listdir(ROOT + "/left") if n != "__pycache__"))
        (pathlib.Path(ROOT) / "left" / "beside.txt").unlink()
    """)
    change = "import demo; open(os.path.dirname(demo.__file__) + '/data/x.txt', 'w').write('mine')"
    world.run(change + "\nopen(os.path.dirname(demo.__file__) + '/kept.txt', 'w').write('kept')")
    assert (
        world.run("""
        import demo
        print([open(os.path.join(os.path.dirname(demo.__file__), name)).read() for name in ("data/x.txt",
            "kept.txt")])
    """)
        == "['x\\n', 'kept']"
    )


def test_functions_are_themselves(world: World) -> None:
    """The wrapped functions look like the originals: name, signature, `repr`, pickling, copying, membership
    in `os.supports_fd`, use as a class attribute, keyword arguments, their errors.
    """
    world.both("""
        import copy, inspect, pickle, shutil, io
        for function in (open, os.stat, os.listdir, os.scandir, os.rename, os.open, os.access):
            print(function.__name__, function, str(inspect.signature(function)).split(",")[0],
                callable(function))
            print(pickle.loads(pickle.dumps(function)) is function, copy.deepcopy(function) is function)
        print(open is io.open, os.stat in os.supports_fd, os.open in os.supports_dir_fd,
            shutil.rmtree.avoids_symlink_attacks)
        class Class:
            opener, status = open, os.stat
        print(Class().status(path=".").st_mode == os.stat(".").st_mode)
        for call in (lambda: open(), lambda: open("nothing-there"), lambda: os.stat(1.5),
            lambda: os.listdir(object()), lambda: open("x\\0")):
            try:
                call()
            except Exception as error:
                print(type(error), error)
        print(sorted(os.listdir(path=".")) == sorted(os.listdir()) == sorted(e.name for e in os.scandir()),
            os.stat(0).st_mode == os.fstat(0).st_mode)
    """)


def test_captured_before(world: World) -> None:
    """Modules that took `open` or `os.stat` for themselves before `install()` see the tree all the same."""
    out = world.run(
        """
        import demo
        print(mine(os.path.dirname(demo.__file__) + "/data/x.txt").read(),
            status(os.path.dirname(demo.__file__) + "/stub.pyi").st_size)
        print(sorted(p.name for p in pathlib.Path(demo.__file__).parent.joinpath("data").glob("*.csv")))
        print(pathlib.Path(demo.__file__).parent.joinpath("data/nested/y.txt").read_text())
        """,
        prelude="import pathlib, glob, tarfile, tempfile, shutil, logging\n"
        "from os import stat as status\nmine = open\n" + world.install(),
    )
    assert out == "x\n 7\n['table.csv']\ny"


def test_commands(world: World) -> None:
    """A program started with `subprocess`, `os.system` or `os.posix_spawn` finds the files of the
    environment that its command line names, itself included.
    """
    world.both("""
        import subprocess, demo
        base = os.path.dirname(demo.__file__)
        print(subprocess.check_output([sys.executable, base + "/script.py", "a"], text=True))
        print(subprocess.check_output(["cat", base + "/data/x.txt"], text=True))
        print(subprocess.check_output(f"cat {base}/data/nested/y.txt | tr y z", shell=True, text=True))
        print(subprocess.check_output(["cat", "stub.pyi"], cwd=base,
            text=True) if os.path.exists(base + "/stub.pyi") else "")
        sys.stdout.flush()
        os.system("cat '%s/data/table.csv'" % base)
        os.waitpid(os.posix_spawn("/bin/cat", ["cat", base + "/sub/text.txt"], os.environ), 0)
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            os.execv(sys.executable, [sys.executable, base + "/script.py", "b"])
        os.waitpid(pid, 0)
    """)


def test_programs(world: World) -> None:
    """A folder of the environment that a program's command line names, or that it is run in, comes with all
    that lies below it; an executable of a package comes with all files of its distribution.
    """
    world.both("""
        import subprocess, demo
        base = os.path.dirname(demo.__file__)
        print(subprocess.check_output([ROOT + "/bin/demo-shell"], text=True))
        find = ["find", ROOT + "/nsp", "-name", "*.[pt]*", "!", "-name", "*.pyc"]
        print(sorted(subprocess.check_output(find, text=True).split()) ==
            sorted(os.path.join(at, name) for at, _, names in os.walk(ROOT + "/nsp") for name in names
            if name.endswith((".py", ".txt"))))
        print(subprocess.check_output(["find", "left", "-name", "*.py"], cwd=ROOT, text=True).split())
        print(subprocess.check_output("cat " + base + "/../right/*.py", shell=True, text=True))
    """)


def test_tracebacks(world: World) -> None:
    """What the wrapped functions raise has the traceback that it has under pip, where the native helper was
    built; elsewhere one frame more.
    """
    code = """

import subprocess, traceback
calls = (
    lambda: open("none"), lambda: os.stat("none"), lambda: os.listdir("none"), lambda: os.scandir("none"),
    lambda: open(ROOT + "/demo/none"), lambda: os.listdir(ROOT + "/demo/none"), lambda: os.remove("none"),
    lambda: os.listdir(ROOT + "/demo/__init__.py"), lambda: open(path=1), lambda: os.stat(),
    lambda: subprocess.run([ROOT + "/demo/none"]),
)
for call in calls:
    try:
        call()
    except Exception as error:
        print(type(error).__name__, [frame.name for frame in traceback.extract_tb(error.__traceback__)])
"""
    if importlib.util.find_spec("cloudimport._native") is not None:
        out = world.both(code)
        assert out.startswith("FileNotFoundError ['<module>', '<lambda>']")
    alone = world.run(code, env={"CLOUDIMPORT_NATIVE": "0"})
    assert alone.startswith("FileNotFoundError ['<module>', '<lambda>', '__call__']")


def test_links_to_folders(world: World) -> None:
    """A symbolic link to a package's folder leads to all that lies below it, in other programs too."""
    world.both("""
        import demo, subprocess
        link = os.path.join(os.environ["HOME"], "link" + str(os.getpid()))
        os.symlink(os.path.dirname(demo.__file__) + "/data", link)
        print(open(link + "/nested/y.txt").read(), sorted(os.listdir(link)))
        print(subprocess.check_output(["cat", link + "/table.csv"], text=True))
        os.chdir(os.path.dirname(demo.__file__))
        os.symlink("sub", link := os.path.join(os.environ["HOME"], "other" + str(os.getpid())))
        print(os.path.exists(link))
    """)


def test_unreachable(world: World) -> None:
    """Where a file cannot be fetched, what opens, measures, moves or removes it, or what it lies in, says so
    with an `OSError`: nothing is taken for absent or empty.
    """
    made = world.folder / "made"
    made.mkdir()
    shelf = MadeShelf(made)
    shelf.add("thing", "1", {"thing/__init__.py": "", "thing/data/large.bin": os.urandom(2_000_000)})
    shelf.environment()
    out = world.run(
        """
        import thing
        data = os.path.dirname(thing.__file__) + "/data"
        os.rename(SHELF, SHELF + "-away")
        folder = os.open(os.path.dirname(data), os.O_RDONLY)
        for name, call in {
            "open": lambda: open(data + "/large.bin"),
            "open at": lambda: os.open("data/large.bin", os.O_RDONLY, dir_fd=folder),
            "access": lambda: os.access(data + "/large.bin", os.R_OK),
            "replace": lambda: os.replace(data + "/large.bin", data + "/other.bin"),
            "rename": lambda: os.rename(data, data + "-moved"),
            "rmdir": lambda: os.rmdir(data),
            "rmdir at": lambda: os.rmdir("data", dir_fd=folder),
            "symlink": lambda: os.symlink(data, data + "-linked"),
        }.items():
            try:
                print(name, call())
            except OSError as error:
                print(name, type(error).__name__, error.errno == 5, SHELF in str(error))
        """,
        prelude=INSTALL.format(lock=str(shelf.lock), cache=str(world.cache)) + f"SHELF = {shelf.url!r}\n",
        env={"CLOUDIMPORT_DEADLINE": "0.2"},
    )
    names = ("open", "open at", "access", "replace", "rename", "rmdir", "rmdir at", "symlink")
    assert out.splitlines() == [f"{name} OSError True True" for name in names]
