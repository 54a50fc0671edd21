"""Children, forks and threads."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.semantics.conftest import World
from tests.support.runtimes import find_python
from tests.support.shelves import write_tree


def test_subprocess(world: World) -> None:
    """A child interpreter started with `sys.executable` (a script, `-c`, `-m`) imports from the environment
    as its parent does.
    """
    world.both("""
        import subprocess
        os.environ["PYTHONPATH"] = os.environ["PYTHONPATH"] if "CLOUDIMPORT_CHILD" in os.environ else ROOT
        def child(*arguments):
            return subprocess.check_output([sys.executable, *arguments], text=True).strip()
        print(child("-c", "import demo, sys; print(demo.__file__)"))
        print(child("-m", "demo", "a", "b"))
        print(child("-m", "demo.script"), child("-m", "unittest", "demo.tests.test_demo"))
        open("child.py", "w").write("import single; print(single.me)")
        print(child("child.py"))
        print(child("-c",
            "import subprocess, sys; command = [sys.executable, '-c', 'import single; print(single.me)'];"
            "print(subprocess.check_output(command, text=True))"))
    """)


def test_childs_path(world: World) -> None:
    """So it does when its parent gives it a `PYTHONPATH` of its own, such as the parent's `sys.path`: by
    `subprocess`, `os.execve`, `os.posix_spawn` or `os.system`.
    """
    out = world.both("""
        import subprocess
        code = "import demo, single, sys; print(demo.__file__, single.me, sys.path.count(sys.argv[1]))"
        command = [sys.executable, "-c", code, ROOT]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        def seen(run):
            reading, writing = os.pipe()
            pid = os.fork()
            if not pid:
                os.dup2(writing, 1)
                run()
                os._exit(1)
            os.close(writing)
            os.waitpid(pid, 0)
            with open(reading) as stream:
                print(stream.read().strip())
        print(subprocess.check_output(command, env=environ, text=True).strip())
        seen(lambda: os.execve(command[0], command, environ))
        seen(lambda: os.execvpe(command[0], command, environ))
        seen(lambda: os.waitpid(os.posix_spawn(command[0], command, environ), 0))
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        seen(lambda: os.execv(command[0], command))
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        seen(lambda: os.system(f"{sys.executable} -c '{code}' {ROOT}"))
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        print(subprocess.check_output(command, text=True).strip())
    """)
    assert out.count("demo/__init__.py") == 7
    # As with packages in site-packages, which need no variable.
    out = world.run("""
        import subprocess
        code = "import single; print(single.me.endswith('single.py'))"
        for environ in ({**os.environ, "PYTHONPATH": "/nowhere"}, {**os.environ, "PYTHONPATH": ""}):
            print(subprocess.check_output([sys.executable, "-c", code], env=environ, text=True).strip())
        del environ["PYTHONPATH"]
        print(subprocess.check_output([sys.executable, "-c", code], env=environ, text=True).strip())
        os.environ["PYTHONPATH"] = "/nowhere"
        print(subprocess.check_output([sys.executable, "-c", code], text=True).strip(),
            os.system("true"), os.environ["PYTHONPATH"])
    """)
    assert out == "True\nTrue\nTrue\nTrue 0 /nowhere"


def test_environments_of_children(world: World) -> None:
    """The environment of a child may be given in all ways that are good without us, and wrong ones raise what
    they raise without us.
    """
    world.both("""
        import pathlib, subprocess
        code = "import os; print(os.environ.get('MINE'), 'PYTHONPATH' in os.environ)"
        command = [sys.executable, "-c", code]
        first = {"MINE": "x", **os.environ, "PYTHONPATH": "/nowhere"}
        environments = [first, {**os.environb, b"MINE": b"y"}, os.environ, os.environb, {"MINE": "alone"},
            {k: os.fsencode(v) for k, v in first.items()}, {**first, "PYTHONPATH": pathlib.Path("/x")},
            None, 1, {"MINE": 1}, {**os.environ, "a=b": "c"}]
        for environ in environments:
            for call in (lambda: os.posix_spawn(command[0], command, environ),
                    lambda: os.spawnve(os.P_NOWAIT, command[0], command, environ),
                    lambda: subprocess.Popen(command, env=environ).pid):
                try:
                    sys.stdout.flush()
                    print(os.waitpid(call(), 0)[1])
                except Exception as error:
                    print(type(error).__name__, error)
    """)


def test_command_line_module(world: World) -> None:
    """In a child `python -m package` runs its `__main__` with the package's own path in `sys.argv[0]`."""
    out = world.run("""
        import subprocess
        print(subprocess.check_output([sys.executable, "-m", "demo", "a"], text=True).strip())
        print(subprocess.check_output([sys.executable, os.path.join(ROOT, "demo"), "a"], text=True).strip())
    """)
    assert out == "main ['a'] True 1\nmain ['a'] False 1"


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_multiprocessing(world: World, method: str) -> None:
    """Workers of `multiprocessing` (spawn, forkserver, fork), `Pool` and `ProcessPoolExecutor` import from
    the environment, wherever the parent calls `install()` and whatever folder it runs in.
    """
    write_tree(
        world.handler,
        {
            "work.py": "def f(n):\n    import demo.sub.late, os\n"
            "    return n + demo.x, demo.__file__, os.getpid()\n"
        },
    )
    guard = """
    import multiprocessing, concurrent.futures, demo, work
    if __name__ == "__main__":
        context = multiprocessing.get_context({method!r})
        os.chdir("/")
        with context.Pool(2) as pool:
            found = pool.map(work.f, range(4))
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
            found.append(executor.submit(work.f, 4).result())
        print([n for n, _, _ in found], {{path == demo.__file__ for _, path, _ in found}},
            os.getpid() in {{pid for _, _, pid in found}})
    """
    assert world.run(guard.format(method=method)) == "[1, 2, 3, 4, 5] {True} False"


def test_main_installs_in_spawned_child(world: World) -> None:
    """A main module that calls `install()` without a guard, as a handler does, works in spawned workers
    too: there `install()` finds the same files as in the parent, else it gives what the parent installed.
    """
    world.handler.mkdir(exist_ok=True)
    shutil.copy(world.shelf.lock, world.handler / "cloudimport.lock")
    (world.folder / "elsewhere").mkdir()
    (world.folder / "elsewhere" / "cloudimport.lock").write_text("not a lock")
    code = """
    import os, faulthandler, subprocess, sys, cloudimport
    faulthandler.dump_traceback_later(30, exit=True)
    env = cloudimport.install()
    import demo, multiprocessing
    def f(n):
        return n + demo.x, cloudimport.install() is env
    if __name__ == "__main__":
        for folder in ("/", {elsewhere!r}):
            os.chdir(folder)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.map(f, [1]))
        command = "import cloudimport; print(cloudimport.install().root == {{!r}})".format(env.root)
        print(subprocess.check_output([sys.executable, "-c", command], cwd="/", text=True))
    """
    out = world.start(
        code.format(elsewhere=str(world.folder / "elsewhere")),
        prelude="",
        env={"CLOUDIMPORT_CACHE": str(world.cache)},
    )
    assert out.ok() == "[(2, True)]\n[(2, True)]\nTrue"


def test_sitecustomize(world: World) -> None:
    """An existing `sitecustomize` still runs in children, and can import from the environment; `sys.path`
    of a child has no folder of ours but the site tree.
    """
    write_tree(world.folder / "custom", {"sitecustomize.py": "import single, sys\nsys.custom = single.me\n"})
    out = world.run(
        """
        import subprocess
        code = "import sys, sitecustomize; print(sys.custom.endswith('single.py'), sitecustomize.__file__,"
        code += "[p for p in sys.path if 'cloudimport/site' in p])"
        print(subprocess.check_output([sys.executable, "-c", code], text=True).strip())
        """,
        prelude="import sys\nsys.modules['single'] = sys\n" + world.install(),
        env={"PYTHONPATH": f"{world.folder}/custom:{Path(__file__).parents[2]}"},
    )
    assert out == f"True {world.folder}/custom/sitecustomize.py []"


def test_other_interpreters(world: World) -> None:
    """A child of another Python version, or of another virtual environment, is left alone."""
    others = filter(None, map(find_python, ("3.10", "3.11", "3.12", "3.13")))
    system = (str(p) for p in Path("/usr/bin").glob("python[23].[0-9]*") if not p.name.endswith("config"))
    found = sorted({*others, *system} - {sys.executable})
    if not found:
        pytest.skip("there is no other interpreter")
    out = world.run(f"""
        import subprocess
        code = "import sys; print('cloudimport' in sys.modules)\\n"
        code += "try:\\n    import demo\\nexcept ImportError: print('alone')"
        for python in {found!r}:
            done = subprocess.run([python, "-c", code], capture_output=True, text=True)
            print(done.stdout.split(), done.stderr)
    """)
    assert {line.strip() for line in out.splitlines()} == {"['False', 'alone']"}, out


def test_isolated_children(world: World) -> None:
    """`-I`, `-E` and `-S` turn the environment off in a child, as they turn off `PYTHONPATH` or
    site-packages; so does a child's own environment without our variables.
    """
    out = world.run("""
        import subprocess
        code = "import importlib.util; print(importlib.util.find_spec('demo'))"
        for flag in ("-I", "-E", "-S"):
            print(subprocess.check_output([sys.executable, flag, "-c", code], text=True).strip())
        print(subprocess.check_output([sys.executable, "-c", code], env={}, text=True).strip())
    """)
    assert out.split() == ["None"] * 4


def test_fork(world: World) -> None:
    """A forked child imports what its parent had not, also when other threads were importing at the moment
    of the fork; a connection is not shared with the parent.
    """
    out = world.run("""
        import threading, time
        import single
        threads = [threading.Thread(target=__import__, args=(name,)) for name in ("left", "demo")]
        for thread in threads:
            thread.start()
        pids = []
        for _ in range(3):
            pid = os.fork()
            if not pid:
                import nsp.b, demo.sub.late
                open(os.path.join(ROOT, "demo", "large.bin"), "rb").close()
                os._exit(nsp.b.b)
            pids.append(pid)
        for thread in threads:
            thread.join()
        print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
    """)
    assert out == "[2, 2, 2]"


def test_fork_in_the_midst_of_an_import(world: World) -> None:
    """A child imports what another thread of its parent was importing; parent and thread go on."""
    world.handler.mkdir()
    (world.handler / "slow.py").write_text("import hooks\nhooks.run()\nimport demo.sub.late\nDONE = True\n")
    (world.handler / "hooks.py").write_text("def run(): pass\n")
    out = world.run("""
        import hooks, threading
        parent, reached, go = os.getpid(), threading.Event(), threading.Event()
        def run():
            if os.getpid() == parent:
                reached.set()
                go.wait()
        hooks.run = run
        thread = threading.Thread(target=__import__, args=("slow",))
        thread.start()
        reached.wait()
        pid = os.fork()
        if not pid:
            import slow
            os._exit(7 if slow.DONE else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        go.set()
        thread.join()
        import slow
        print(code, slow.DONE)
    """)
    assert out == "7 True"


def test_threads(world: World) -> None:
    """Many threads can import at once, and read data files at once; each module is executed once."""
    out = world.run("""
        import threading, collections
        names = ["demo.sub.late", "single", "nsp.a", "nsp.b", "nsp.deep.c", "demo.raises",
            "demo.tests.test_demo", "zstandard"] * 5
        barrier, got = threading.Barrier(len(names)), collections.Counter()
        def work(name):
            barrier.wait()
            __import__(name)
            got[len(open(os.path.join(ROOT, "demo", "large.bin"), "rb").read())] += 1
        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(dict(got))
    """)
    assert out == "{1280000: 40}"


def test_no_deadlock(world: World) -> None:
    """Two threads that import packages which import each other's parts do not deadlock."""
    out = world.run("""
        import threading, faulthandler
        faulthandler.dump_traceback_later(30, exit=True)
        threads = [threading.Thread(target=__import__, args=(name,)) for name in ("left", "right")]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        import left, right
        print(left.x, right.x, left.part.y, right.part.y)
    """)
    assert out == "1 1 2 2"


def test_import_lock(world: World) -> None:
    """A finder or path hook of somebody else's may read files of the environment while it looks for a
    module: waiting for the shelf never blocks the imports of other threads.
    """
    world.handler.mkdir(exist_ok=True)
    # In a child, since there not even hashlib is loaded before the first fetch.
    (world.handler / "child.py").write_text(_FINDER)
    out = world.run("""
        import subprocess
        print(subprocess.check_output([sys.executable, "child.py", ROOT], text=True))
    """)
    assert out == "1280000 6\nnot found\n1"


_FINDER = """
import faulthandler, os, sys
faulthandler.dump_traceback_later(30, exit=True)
ROOT = sys.argv[1]

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "anything":
            size = len(open(os.path.join(ROOT, "demo", "large.bin"), "rb").read())
            print(size, len(os.listdir(os.path.join(ROOT, "demo", "data"))))

sys.meta_path.insert(0, Finder())
try:
    import anything
except ModuleNotFoundError:
    print("not found")
sys.path.insert(0, os.path.join(ROOT, "demo"))
import left
print(left.x)
"""


def test_at_exit(world: World) -> None:
    """Imports and data files work in `atexit` functions, in threads that outlive the main one, and in
    `__del__` at shutdown (as far as Python lets anything be imported then).
    """
    out = world.run("""
        import atexit, threading, time
        def late():
            import demo.sub.late
            print(open(os.path.join(ROOT, "demo", "data", "x.txt")).read().strip(), demo.x)
        atexit.register(late)
        def slow():
            time.sleep(.2)
            import nsp.b
            print(nsp.b.b)
        threading.Thread(target=slow).start()
    """)
    assert out == "2\nx 1"


def test_subinterpreters(world: World) -> None:
    """A subinterpreter has what it installs itself, as it has modules of its own; the native helper serves
    all of them, for the environment that the main one has installed.
    """
    out = world.run(
        f"""
        import demo
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        code = '''if True:
            import sys
            before = [f for f in sys.meta_path if type(f).__module__.startswith("cloudimport")]
            sys.path[:0] = {{path!r}}
            import cloudimport
            environment = cloudimport.install(lock={{lock!r}}, cache={{cache!r}})
            import demo, os, single
            from importlib.metadata import version
            with open(os.path.dirname(demo.__file__) + "/data/x.txt") as file:
                print(len(before), demo.x, file.read().strip(), version("demo"),
                    single.me.endswith("single.py"), flush=True)
            cloudimport.uninstall()
        '''
        code = code.format(path=sys.path, lock={str(world.shelf.lock)!r}, cache={str(world.cache)!r})
        made = interpreters.create()
        print(interpreters.run_string(made, code), flush=True)
        print(open(os.path.dirname(demo.__file__) + "/data/nested/y.txt").read().strip(), flush=True)
        # CPython 3.12.1 crashes by itself in a second one, and when one ends that has imported much.
        os._exit(0)
        """
    )
    assert out == "0 1 x 1.2 True\nNone\ny"
