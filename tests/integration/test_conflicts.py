"""Pinned older releases of what the runtime and the curator use themselves: the handler gets the pins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.children import Runner
from tests.support.s3servers import S3Server
from tests.support.shelfcommand import run_shelf

#: All of them have a newer release beside this test, in its own environment.
PINS = """\
zstandard==0.23.0
cachetools==5.3.0
botocore==1.36.0
jmespath==1.0.1
python-dateutil==2.8.2
six==1.16.0
urllib3==2.0.7
fsspec==2023.10.0
backports.zstd==1.0.0
"""
CODE = """
    import importlib.metadata, sys
    import cloudimport
    env = cloudimport.install()
    third = ("zstandard", "cachetools", "botocore", "boto3", "urllib3", "fsspec", "backports", "s3fs")
    print([name for name in sys.modules if name.partition(".")[0] in third])
    import six  # something was fetched, checked and decompressed
    print([name for name in sys.modules if name.partition(".")[0] in third])
    import backports.zstd, botocore.session, cachetools, fsspec, zstandard
    for module in (backports.zstd, botocore, cachetools, fsspec, zstandard):
        name = module.__name__
        print(name, importlib.metadata.version(name), module.__file__.startswith(env.root))
    print(zstandard.ZstdDecompressor().decompress(backports.zstd.compress(b"hi")))
"""
SAID = """\
[]
[]
backports.zstd 1.0.0 True
botocore 1.36.0 True
cachetools 5.3.0 True
fsspec 2023.10.0 True
zstandard 0.23.0 True
b'hi'"""


@pytest.mark.network
def test_pinned_releases_win(moto: S3Server, runtime: Callable[[str], str], tmp_path: Path) -> None:
    """Older pins of the runtime's own kind of libraries are what a handler gets, in any environment."""
    (tmp_path / "requirements.txt").write_text(PINS)
    shelf = f"s3://{moto.make_bucket('conflicts')}"
    run_shelf("publish", "-r", tmp_path / "requirements.txt", "--shelf", shelf, env=moto.environ).ok()
    env = {**moto.environ, "CLOUDIMPORT_LOCK": str(tmp_path / "cloudimport.lock")}
    bare = runtime(f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert Runner(tmp_path / "bare", bare, []).run(CODE, env=env).ok() == SAID
    assert Runner(tmp_path / "full", sys.executable).run(CODE, env=env).ok() == SAID
