"""One small environment by hand, every byte of it known: two packages, one with a native file."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloudimport.format.content import Content, File, Native
from cloudimport.format.layout import Block, BuildPointer, Layout, Pack
from cloudimport.format.lock import BootRange, Lock
from cloudimport.format.records import EnvironmentPointer, Ref, canonical, requirements_digest, sha256
from cloudimport.format.signing import build_message, environment_message, lock_message
from cloudimport.format.status import Status
from cloudimport.ids import Pin, Target
from shelf_tools.indexing import Built, build_index
from shelf_tools.reach import BootList
from shelf_tools.signing import Signer, signed

TARGET = "cp312-manylinux_2_34_x86_64"
LINES = ("alpha==1.2", 'beta[x]==2!1+local ; python_version >= "3.10"')


def digest(text: str) -> str:
    """Return the digest of a text."""
    return sha256(text.encode())


def alpha() -> Content:
    """Return the content of a package with a native file, a script, data and metadata."""
    files = (
        File("alpha-1.2.dist-info/METADATA", "metadata", False, 60, digest("m")),
        File("alpha/__init__.py", "source", False, 100, digest("i")),
        File("alpha/_x.abi3.so", "native", True, 3000, digest("x")),
        File("alpha/dätä.txt", "data", False, 0, digest("")),
        File("alpha/legacy.pyc", "bytecode", False, 40, digest("l")),
        File("bin/alpha", "script", True, 30, digest("s")),
    )
    native = {"alpha/_x.abi3.so": Native(("libbeta.so", "libc.so.6"), "", ("$ORIGIN/../beta.libs",))}
    return Content("alpha", "1.2", TARGET, files, ("beta[x]>=2!1",), ">=3.8", ("docs",), native)


def alpha_layout() -> Layout:
    """Return a traced layout of ``alpha`` that takes one pack of another version."""
    return Layout(
        "alpha",
        "1.2",
        TARGET,
        sha256(alpha().encode()),
        "trace",
        "cb0d0d0a",
        1,
        (Pack("1.2", TARGET, digest("p1"), 2000), Pack("1.1", TARGET, digest("p0"), 70)),
        (
            Block(0, 0, 100, 260, 1, digest("b0")),
            Block(0, 100, 1900, 3000, 1, digest("b1")),
            Block(1, 10, 60, 60, 0, digest("b2")),
        ),
        ((2, 0, 60), (0, 0, 50, 0, 60, 50), (1, 0, 3000), (), (0, 110, 40), (0, 150, 30)),
        {"alpha/__init__.py": (0, 180, 80)},
        (3,),
        {"beta": ("beta.py", "no/such.py")},
        {"alpha/__init__.py": {"alpha": ("alpha/_x.abi3.so",), "beta": ("beta.py",), "gone": ("gone.py",)}},
    )


def beta() -> Content:
    """Return the content of a package with a module and a library."""
    files = (
        File("beta.libs/libbeta.so", "native", False, 500, digest("lib")),
        File("beta.py", "source", False, 20, digest("b")),
    )
    native = {"beta.libs/libbeta.so": Native(("libc.so.6",), "libbeta.so", ())}
    return Content("beta", "2!1+local", TARGET, files, (), "", (), native)


def beta_layout() -> Layout:
    """Return a static layout of ``beta`` without bytecode."""
    return Layout(
        "beta",
        "2!1+local",
        TARGET,
        sha256(beta().encode()),
        "static",
        "",
        1,
        (Pack("2!1+local", TARGET, digest("q"), 520),),
        (Block(0, 0, 20, 20, 0, digest("c0")), Block(0, 20, 500, 500, 0, digest("c1"))),
        ((1, 0, 500), (0, 0, 20)),
        {},
        (),
        {},
    )


def built(content: Content, layout: Layout) -> Built:
    """Return a build with its digests."""
    return Built(content, sha256(content.encode()), layout, sha256(layout.encode()))


def index_bytes() -> bytes:
    """Return the plain bytes of the environment index over both."""
    builds = [built(beta(), beta_layout()), built(alpha(), alpha_layout())]
    return build_index(builds, LINES, Target.parse(TARGET), lambda warning: None)


def index_ref() -> Ref:
    """Return the reference of that index."""
    data = index_bytes()
    return Ref(sha256(data), 321, len(data))


def build_pointer() -> BuildPointer:
    """Return a pointer with references of known sizes."""
    return BuildPointer(
        "alpha",
        "1.2",
        TARGET,
        Ref(digest("content"), 10, 20),
        Ref(digest("layout"), 30, 40),
        Ref(digest("provenance"), 50, 60),
    )


def environment_pointer() -> EnvironmentPointer:
    """Return a pointer of one target that was published twice."""
    old = Ref(digest("old"), 1, 2)
    return EnvironmentPointer(LINES, {TARGET: Ref(digest("new"), 3, 4)}, {TARGET: (old,)})


def forgotten_pointer() -> EnvironmentPointer:
    """Return a pointer whose target was forgotten but for an index that lockfiles may pin."""
    return EnvironmentPointer(LINES, {}, {TARGET: (Ref(digest("old"), 1, 2),)})


def lease() -> bytes:
    """Return what a writer announces."""
    rows = [["alpha", "1.2", TARGET], ["beta", "2!1+local", TARGET]]
    record = {"format": 1, "kind": "lease", "builds": rows, "environments": [digest("requirements")]}
    return canonical(record)


def boot_list() -> BootList:
    """Return the list of a boot image's parts."""
    parts = (("alpha", "1.2", digest("part")), ("beta", "2!1+local", digest("other part")))
    return BootList(index_ref().digest, TARGET, parts)


def status() -> Status:
    """Return a status with two versions of one package that were yanked."""
    yanked = {
        Pin("beta", "2!1+local"): "wrong – built",
        Pin("alpha", "1.2"): "a hole",
        Pin("alpha", "1"): "old",
    }
    return Status.empty()._replace(yanked=yanked)


def lock() -> Lock:
    """Return the lock of that environment."""
    return Lock("s3://bucket/prefix", LINES, {TARGET: Ref(digest("new"), 3, 4)}, {})


def signer() -> Signer:
    """Return the key whose secret is 32 zeros: it signs the same on every machine (RFC 8032)."""
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))


def signed_build_pointer() -> BuildPointer:
    """Return the build's pointer, signed."""
    pointer = build_pointer()
    digests = pointer.content.digest, pointer.layout.digest, pointer.provenance.digest
    message = build_message("alpha", "1.2", TARGET, *digests)
    return pointer._replace(signatures=signed(message, [signer()]))


def signed_environment_pointer() -> EnvironmentPointer:
    """Return the environment's pointer, signed."""
    pointer = environment_pointer()
    message = environment_message(TARGET, requirements_digest(LINES), pointer.targets[TARGET].digest)
    return pointer._replace(signatures={TARGET: signed(message, [signer()])})


def signed_lock() -> Lock:
    """Return the lock with a boot image, a root, and its signature."""
    found = boot_lock()._replace(roots=(signer().key,))
    return found._replace(signatures=signed(lock_message(found.encode()), [signer()]))


def boot_lock() -> Lock:
    """Return the same with a boot image."""
    rows = (
        BootRange("alpha", "1.2", digest("part"), 0, 700, (0, 2, 5, 1)),
        BootRange("alpha", "1.2", digest("part"), 700, 50, (9, 1)),
        BootRange("beta", "2!1+local", digest("other part"), 0, 10, (3, 1)),
    )
    return lock()._replace(boots={TARGET: rows})
