"""Object keys of a shelf (docs/format.md, section 4). Import budget: nothing of its own."""

from __future__ import annotations

SHELF = "shelf.json"
STATUS = "status.json"
COLLECTION = "collection.json"
LEASES = "leases/"


def build_prefix(name: str, version: str, target: str) -> str:
    """Return the prefix of a build's objects, with a trailing slash."""
    quoted = version.replace("!", "%21").replace("+", "%2B")
    return f"packages/{name}/{quoted}/{target}/"


def build_pointer(name: str, version: str, target: str) -> str:
    """Return the key of a build's pointer."""
    return build_prefix(name, version, target) + "build.json"


def environment_pointer(requirements_digest: str) -> str:
    """Return the key of an environment's pointer."""
    return f"envs/{requirements_digest}.json"


def environment_index(digest: str) -> str:
    """Return the key of an environment index."""
    return f"envs/{digest}"


def boot_list(index: str, digest: str) -> str:
    """Return the key of the list of a boot image's parts, for the environment index ``index``."""
    return f"boots/{index}/{digest}"


def is_immutable(key: str) -> bool:
    """Whether a key ends with the digest of what it names: its bytes never change, and can be checked."""
    name = key.rpartition("/")[2]
    digest = name if key == f"envs/{name}" else name.partition("-")[2]
    return len(digest) == 64 and not digest.strip("0123456789abcdef") and ".." not in key.split("/")


def package_of(key: str) -> str:
    """Return the ``name==version`` that a key belongs to, or "" for keys of the shelf itself."""
    parts = key.split("/")
    if parts[0] != "packages" or len(parts) < 4:
        return ""
    return f"{parts[1]}=={parts[2].replace('%21', '!').replace('%2B', '+')}"
