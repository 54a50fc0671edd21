"""``shelf lock``: ranges, extras and markers to pins for targets, with indexes of the tests' own."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from cloudimport.ids import Target, running_targets
from shelf_tools.pins import for_target, read_pins
from tests.support.children import Ran, Runner
from tests.support.packageindex import package_index
from tests.support.shelfcommand import run_shelf
from tests.support.wheels import build_wheel

#: What the program answers: to uv a password, to newer versions of pip both in JSON.
KEYRING = """\
#!/bin/sh
case "$*" in
    *--mode=creds*get*me) echo '{"username": "me", "password": "secret"}' ;;
    *get*me) echo secret ;;
    *) exit 1 ;;
esac
"""
X86 = "cp312-manylinux_2_28_x86_64"
ARM = "cp310-manylinux_2_26_aarch64"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels: ``web`` with an extra and conditional dependencies, ``fast`` with native code, two ``base``."""
    folder = tmp_path_factory.mktemp("wheels")
    requires = ["base>=1", 'older; python_version < "3.11"', 'fast; platform_machine == "x86_64"']
    requires += ['windows; sys_platform == "win32"', 'socks; extra == "socks"']
    head = "Metadata-Version: 2.1\nName: web\nVersion: 1.5\nProvides-Extra: socks\n"
    metadata = head + "".join(f"Requires-Dist: {line}\n" for line in requires)
    build_wheel(folder, "web", "1.5", {"web.py": "import base\n"}, metadata=metadata)
    for name, version in (("base", "1.0"), ("base", "2.0.0"), ("older", "1.0"), ("socks", "1.0")):
        build_wheel(folder, name, version, {f"{name}.py": f"v = {version!r}\n"})
    needs = "Metadata-Version: 2.1\nName: base\nVersion: 3.0\nRequires-Python: >=3.11.4\n"
    build_wheel(folder, "base", "3.0", {"base.py": "v = '3.0'\n"}, metadata=needs)
    for version, glibc in (("1.0", "2_17"), ("2.0", "2_28")):
        tag = f"cp37-abi3-manylinux_{glibc}_x86_64"
        build_wheel(folder, "fast", version, {"fast.py": ""}, tag=tag, purelib=False)
    return folder


class Curator:
    """Locks in a folder, with nothing of the developer's configuration."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder = folder
        self.out = folder / "requirements.txt"
        self.env = {
            "HOME": str(folder / "home"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": str(wheels),
            "PIP_NO_INDEX": "1",
            "UV_NO_CACHE": "1",
        }

    def lock(self, text: str, *arguments: str | Path, name: str = "requirements.in") -> Ran:
        """Write ``text`` and lock it."""
        (self.folder / name).write_text(text)
        command = ("lock", name, "-o", "requirements.txt", *arguments)
        return run_shelf(*command, env=self.env, cwd=self.folder)

    def pins(self, target: str = X86) -> list[str]:
        """Return the written pins for a target, each with its extras."""
        found = for_target(read_pins(self.out), Target.parse(target))
        return [one._replace(marker="").line for one in found]


@pytest.fixture
def curator(tmp_path: Path, wheels: Path) -> Curator:
    """A curator whose index is the folder of wheels."""
    return Curator(tmp_path, wheels)


def test_locked_for_the_target_and_not_for_this_machine(curator: Curator, wheels: Path) -> None:
    """Python, machine and C library are the target's; every pin has the hashes of its files."""
    curator.lock("web[socks]>=1\n", "--target", X86).ok()
    assert curator.pins() == ["base==3", "fast==2", "socks==1", "web[socks]==1.5"]
    assert "older" not in curator.out.read_text()
    digest = hashlib.sha256((wheels / "web-1.5-py3-none-any.whl").read_bytes()).hexdigest()
    assert next(one for one in read_pins(curator.out) if one.pin.name == "web").hashes == (
        f"sha256:{digest}",
    )
    curator.out.unlink()
    curator.lock("web\n", "--target", "cp312-manylinux_2_17_x86_64").ok()
    assert "fast==1" in curator.pins()
    curator.out.unlink()
    curator.lock("web\n", "--target", ARM).ok()
    assert curator.pins(ARM) == ["base==2", "older==1", "web==1.5"]


def test_one_list_for_two_targets(curator: Curator) -> None:
    """Lines that differ carry markers, and each target gets of the one list what it gets of its own."""
    said = curator.lock("web[socks]\n", "--target", X86, "--target", ARM).ok()
    assert "requirements.txt: 6 pins, 4 of them by target, for" in said
    assert curator.pins(X86) == ["base==3", "fast==2", "socks==1", "web[socks]==1.5"]
    assert curator.pins(ARM) == ["base==2", "older==1", "socks==1", "web[socks]==1.5"]
    lines = [line for line in curator.out.read_text().splitlines() if "==" in line and line[0] != "#"]
    assert lines[:2] == [
        'base==2.0.0 ; python_version == "3.10" \\',
        'base==3.0 ; python_version == "3.12" \\',
    ]
    before = curator.out.read_text()
    curator.lock("web[socks]\n", "--target", X86, "--target", ARM, "-U").ok()
    assert curator.out.read_text() == before
    curator.lock("web[socks]\n", "--target", ARM, "--target", X86).ok()
    assert curator.out.read_text().splitlines()[3:] == before.splitlines()[3:]


def test_c_libraries_that_need_other_pins_are_refused(curator: Curator) -> None:
    """No marker tells them: one line says what to do, and what was written before stays."""
    curator.out.write_text("base==1\n")
    ran = curator.lock("fast\n", "--target", X86, "--target", "cp312-manylinux_2_17_x86_64")
    assert ran.returncode == 1
    assert re.fullmatch(
        rf"shelf: error: fast==1.0 for cp312-manylinux_2_17_x86_64, fast==2.0 for {X86}: "
        r"they differ by their C library only, .* or make two lists",
        ran.stderr.strip(),
    )
    assert curator.out.read_text() == "base==1\n"
    curator.lock("base\n", "--target", X86, "--target", "cp312-manylinux_2_17_x86_64", "-U").ok()
    assert curator.pins() == ["base==3"]


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("nothing-such\nweb\n", (), "nothing-such was not found in the provided package locations"),
        ("base>5\n", (), r"only base<=3\.0 is available"),
        ("web\nbase<1\n", (), "web depend on base>=1 and you require web"),
        ("web = 1\n", (), r"Couldn't parse requirement in `requirements.in`.*web = 1"),
        ("fast\n", ("--target", ARM), "fast have no wheels with a matching platform tag"),
        ("-e .\n", (), "does not appear to be a Python project"),
        ("base\n", ("-c", "gone.txt"), r"gone\.txt: cannot be read"),
        ("base\n", ("--exclude-newer", "soon"), "invalid value 'soon' for '--exclude-newer"),
    ],
)
def test_what_cannot_be_resolved_is_one_line(
    curator: Curator, text: str, arguments: tuple[str, ...], said: str
) -> None:
    """Each of uv's refusals is one line that names what and why, and nothing is written."""
    ran = curator.lock(text, *arguments)
    assert ran.returncode == 1
    (line,) = ran.stderr.strip().splitlines()
    assert line.startswith("shelf: error: ")
    assert re.search(said, line), line
    assert sorted(path.name for path in curator.folder.iterdir()) in (
        ["requirements.in"],
        ["home", "requirements.in"],
    )


def test_constraints_are_kept_to(curator: Curator) -> None:
    """``-c``, of arguments and of the file itself, limits versions and asks for nothing."""
    (curator.folder / "limits.txt").write_text("base<3\nsocks<1\n")
    (curator.folder / "more.txt").write_text("fast<2\n")
    curator.lock("-c more.txt\nweb\n", "-c", "limits.txt", "--target", X86).ok()
    assert curator.pins() == ["base==2", "fast==1", "web==1.5"]


def test_versions_stay_until_they_are_upgraded(curator: Curator) -> None:
    """Locking again keeps what fits; ``-P`` lets one go, ``-U`` all."""
    curator.lock("base<3\nfast<2\n", "--target", X86).ok()
    curator.lock("base\nfast\n", "--target", X86).ok()
    assert curator.pins() == ["base==2", "fast==1"]
    curator.lock("base\nfast\n", "--target", X86, "-P", "fast").ok()
    assert curator.pins() == ["base==2", "fast==2"]
    curator.lock("base\nfast\n", "--target", X86, "-U").ok()
    assert curator.pins() == ["base==3", "fast==2"]
    curator.out.write_text("base>1\n")
    ran = curator.lock("base<3\n", "--target", X86)
    assert "note: its versions are not kept: requirements.txt:1: base: '>1' is a range" in ran.stderr
    assert curator.pins() == ["base==2"]


def test_a_project_is_locked_without_running_it(curator: Curator) -> None:
    """Static dependencies of pyproject.toml are read, extras by name; what would run code is refused."""
    project = '[project]\nname = "app"\nversion = "1"\ndependencies = ["base<3"]\n'
    extra = '[project.optional-dependencies]\nweb = ["socks"]\n'
    curator.lock(project + extra, "--extra", "web", "--target", X86, name="pyproject.toml").ok()
    assert curator.pins() == ["base==2", "socks==1"]
    dynamic = '[project]\nname = "app"\ndynamic = ["version", "dependencies"]\n'
    (curator.folder / "setup.py").write_text(f"open({str(curator.folder / 'ran')!r}, 'w')\n")
    ran = curator.lock(dynamic, name="pyproject.toml")
    assert ran.returncode == 1
    assert not (curator.folder / "ran").exists()


def test_the_input_is_never_written_to(curator: Curator) -> None:
    """``-o`` with the input's own name is refused."""
    ran = curator.lock("base\n", name="requirements.txt")
    assert "requirements.txt is what is to be locked: write to another file with -o" in ran.stderr
    assert curator.out.read_text() == "base\n"


def test_indexes_of_arguments_and_files_go_to_the_list(
    curator: Curator, wheels: Path, tmp_path: Path
) -> None:
    """What was named on the way is in the list, relative to it and without passwords; publishing finds it."""
    del curator.env["PIP_FIND_LINKS"], curator.env["PIP_NO_INDEX"]
    (tmp_path / "wheels").symlink_to(wheels)
    with package_index(wheels, "me:secret") as server:
        url = server.endpoint.replace("http://", "http://me:secret@") + "/simple"
        text = f"--extra-index-url {url}\nbase\n"
        (tmp_path / "out").mkdir()
        (tmp_path / "requirements.in").write_text(text)
        command = ("lock", "requirements.in", "-o", "out/r.txt", "--no-index", "-f", "wheels")
        ran = run_shelf(*command, env=curator.env, cwd=tmp_path)
        ran.ok()
    written = (tmp_path / "out" / "r.txt").read_text()
    assert f"\n--extra-index-url {server.endpoint}/simple\n--find-links ../wheels\n--no-index\n" in written
    assert "secret" not in written + ran.stdout + ran.stderr
    assert f"note: user and password of {server.endpoint}/simple are not written to out/r.txt" in ran.stderr
    publish = ("publish", "-r", "out/r.txt", "--shelf", "shelf", "--level", "3")
    assert "1 published" in run_shelf(*publish, env=curator.env, cwd=tmp_path).ok()


@pytest.mark.parametrize("how", ["netrc", "keyring", "url", "variable"])
def test_a_private_index_with_the_credentials_that_pip_has(
    curator: Curator, wheels: Path, tmp_path: Path, how: str
) -> None:
    """netrc, the keyring program, a URL and a variable in it serve locking and publishing alike."""
    del curator.env["PIP_FIND_LINKS"], curator.env["PIP_NO_INDEX"]
    curator.env["PIP_RETRIES"] = curator.env["UV_HTTP_RETRIES"] = "0"
    with package_index(wheels, "me:secret") as server:
        host = server.endpoint.removeprefix("http://")
        user = {"netrc": "", "keyring": "me@", "url": "me:secret@", "variable": "${ME}:${SECRET}@"}[how]
        curator.env |= _credentials(how, tmp_path)
        if how == "variable":
            text = f"--index-url http://{user}{host}/simple\nbase\n"
        else:
            text = "base\n"
            curator.env["PIP_INDEX_URL"] = f"http://{user}{host}/simple"
        curator.lock(text).ok()
        written = curator.out.read_text()
        assert "secret" not in written
        assert (f"--index-url http://{user}{host}/simple" in written) == (how == "variable")
        publish = ("publish", "-r", "requirements.txt", "--shelf", "shelf", "--level", "3")
        assert "1 published" in run_shelf(*publish, env=curator.env, cwd=tmp_path).ok()
        curator.env |= {"NETRC": os.devnull, "PIP_KEYRING_PROVIDER": "disabled", "SECRET": "wrong"}
        if how != "url":
            refused = curator.lock(text)
            assert refused.returncode == 1
            assert re.search(r"401|credentials", refused.stderr)
            assert len(refused.stderr.strip().splitlines()) == 1
            assert curator.out.read_text() == written


def _credentials(how: str, folder: Path) -> dict[str, str]:
    """Put the password where it is looked for, and return the variables for that."""
    if how == "netrc":
        (folder / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
        return {"NETRC": str(folder / "netrc")}
    if how == "keyring":
        program = folder / "bin" / "keyring"
        program.parent.mkdir()
        program.write_text(KEYRING)
        program.chmod(0o755)
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "PIP_KEYRING_PROVIDER": "subprocess"}
    return {"ME": "me", "SECRET": "secret"} if how == "variable" else {}


def test_nothing_that_came_after_a_date(curator: Curator, wheels: Path) -> None:
    """``--exclude-newer`` goes by the index's upload times."""
    del curator.env["PIP_FIND_LINKS"], curator.env["PIP_NO_INDEX"]
    with package_index(wheels, times={"base-3.0-py3-none-any.whl": "2024-06-01T00:00:00Z"}) as server:
        where = ("--index-url", f"{server.endpoint}/simple", "--target", X86)
        curator.lock("base\n", *where, "--exclude-newer", "2024-01-01").ok()
        assert curator.pins() == ["base==2"]
        assert "--exclude-newer 2024-01-01" in curator.out.read_text()
        curator.lock("base\n", *where, "--exclude-newer", "2024-07-01", "-U").ok()
        assert curator.pins() == ["base==3"]


def test_a_private_package_comes_from_the_index_that_was_asked_first(
    curator: Curator, tmp_path: Path
) -> None:
    """A newer release of the same name on another index does not take a private one's place."""
    del curator.env["PIP_FIND_LINKS"], curator.env["PIP_NO_INDEX"]
    build_wheel(tmp_path / "private", "ours", "1.0", {"ours.py": ""})
    build_wheel(tmp_path / "public", "ours", "9.0", {"ours.py": "raise SystemExit('stolen')\n"})
    with package_index(tmp_path / "private") as private, package_index(tmp_path / "public") as public:
        where = (
            "--index-url",
            f"{public.endpoint}/simple",
            "--extra-index-url",
            f"{private.endpoint}/simple",
        )
        curator.lock("ours\n", *where, "--target", X86).ok()
        assert curator.pins() == ["ours==1"]
        curator.lock("ours\n", *where, "--target", X86, "-U", "--index-strategy", "unsafe-best-match").ok()
        assert curator.pins() == ["ours==9"]


def test_locked_published_and_imported(curator: Curator, tmp_path: Path) -> None:
    """A list for two targets is published for both as it stands, and imported on the one that runs here."""
    target = str(running_targets()[0])
    curator.lock("web[socks]<2\n", "--target", target, "--target", "lambda-python3.10-arm64").ok()
    targets = ("--target", target, "--target", "lambda-python3.10-arm64")
    command = ("publish", "-r", "requirements.txt", *targets, "--shelf", "shelf", "--level", "3")
    run_shelf(*command, env=curator.env, cwd=tmp_path).ok()
    code = "import cloudimport\ncloudimport.install()\nimport web, socks\nprint(web.base.v, socks.v)\n"
    env = {"CLOUDIMPORT_LOCK": str(tmp_path / "cloudimport.lock")}
    assert Runner(tmp_path / "home2").run(code, env=env).ok().split()[1] == "1.0"
