"""An environment of more than 1 GB, four times what a function package may have, in Lambda-like sandboxes."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudimport.format import keys
from cloudimport.format.index import EnvironmentIndex, Section
from cloudimport.ids import running_targets
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from cloudimport.sources.record import read_record
from shelf_tools.environments import read_lock
from shelf_tools.lambdabox.runtime import lay_out
from tests.support.lambdas import Function, function, make_box
from tests.support.plainlayers import runtime_layer
from tests.support.runtimes import running_version
from tests.support.s3servers import S3Server
from tests.support.sandboxes import bubblewrap
from tests.support.shelfcommand import run_shelf

pytestmark = pytest.mark.long

MIB, GIB = 1 << 20, 1 << 30
LIST = Path(__file__).parent / "large" / "requirements.txt"
#: Of what there is, a part: each package does something.
PART = """
import io, os, tempfile
os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp()

def part():
    import numpy as np
    import pandas as pd
    import pyarrow.parquet as pq
    from scipy import linalg
    from sklearn.linear_model import LinearRegression
    x = np.arange(20.0).reshape(10, 2) + np.eye(10, 2)
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1]})
    file = io.BytesIO()
    frame.to_parquet(file)
    frame = pq.read_table(io.BytesIO(file.getvalue())).to_pandas()
    model = LinearRegression().fit(frame, frame.a + 2 * frame.b)
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    import skimage.filters, skimage.measure
    image = np.zeros((64, 64), np.uint8)
    image[16:48, 16:48] = 255
    found = int(skimage.measure.label(image > skimage.filters.threshold_otsu(image)).max())
    figure = io.BytesIO()
    plt.imshow(image)
    plt.savefig(figure)
    assert (found, len(figure.getvalue()) > 1000) == (1, True)
    return [round(float(c), 3) for c in model.coef_], round(float(linalg.det(x.T @ x)), 3)
"""
WHOLE = """
def whole():
    import cv2, numba, numpy as np, onnxruntime, polars as pl, transformers
    from tokenizers import Tokenizer, models, pre_tokenizers
    blurred = int(cv2.GaussianBlur(np.full((64, 64), 255, np.uint8), (5, 5), 0).min())
    total = numba.njit(lambda n: n * (n - 1) // 2)(100)
    words = pl.DataFrame({"w": ["a", "b", "a"]}).group_by("w").len().sort("w")["len"].to_list()
    tokens = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokens)
    ids = fast("b a")["input_ids"]
    said = "CPUExecutionProvider" in onnxruntime.get_available_providers()
    return blurred, total, words, ids, said
"""
HANDLER = """
import cloudimport
cloudimport.install()
import resource

def both():
    return part(), whole()

def handler(event, context):
    try:
        value = globals()[event]()
    except ImportError as error:
        return {"error": type(error).__name__, "text": str(error)}
    place = os.statvfs("/tmp")
    return {
        "value": value, "stats": cloudimport.stats(), "loaded": list(cloudimport.loaded()),
        "tmp": (place.f_blocks - place.f_bfree) * place.f_frsize,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
"""


@dataclass
class Large:
    """The environment on a server, and a function that uses it."""

    server: S3Server
    folder: Path
    sections: list[Section]

    def run(self, event: str, **limits: Any) -> dict[str, Any]:
        """Invoke a function of its own sandbox; returns what it returns."""
        box = make_box(
            self.folder / "task",
            self.folder / "runtime",
            running_version(),
            server=self.server,
            layers=[self.folder / "layer"],
            environ={"CLOUDIMPORT_YANKED": "ignore"},
            **limits,
        )
        with function(box) as one:
            found: dict[str, Any] = one.result(event, timeout=300)
            _tell(event, limits, found, one)
        return found


def _tell(event: str, limits: dict[str, Any], found: dict[str, Any], one: Function) -> None:
    """Print the figures (``pytest -s``)."""
    sys.stdout.write(f"\n{event} {limits}: {json.dumps({k: v for k, v in found.items() if k != 'loaded'})}")
    sys.stdout.write("".join(line + "\n" for line in one.log.splitlines() if '"cold start"' in line))


def publish(folder: Path, shelf: str, environ: dict[str, str]) -> None:
    """Publish the list; the lockfile lies beside it in ``folder``."""
    shutil.copy(LIST, folder / "requirements.txt")
    run_shelf(
        "publish", "-r", "requirements.txt", "--shelf", shelf, "--level", "3", env=environ, cwd=folder
    ).ok()


@pytest.fixture(scope="module")
def large(radosgw: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Large:
    """The environment, published to a real S3 server."""
    bubblewrap()
    if platform.machine() != "x86_64" or not (3, 11) <= sys.version_info[:2] <= (3, 13):
        pytest.skip("the list is for CPython 3.11 to 3.13 on x86-64")
    folder = tmp_path_factory.mktemp("large")
    radosgw.make_bucket("large")
    publish(folder, "s3://large/root", radosgw.environ)
    (folder / "task").mkdir()
    (folder / "task" / "app.py").write_text(PART + WHOLE + HANDLER)
    shutil.copy(folder / "cloudimport.lock", folder / "task")
    lay_out(folder / "runtime", running_version())
    runtime_layer(folder / "layer")
    ref = read_lock(folder / "cloudimport.lock").targets[str(running_targets()[0])]
    with closing(open_source("s3://large/root", SourceConfig(environ=radosgw.environ))) as source:
        index = EnvironmentIndex(read_record(source, keys.environment_index(ref.digest), ref), ref)
    return Large(radosgw, folder, [index.section(build) for build in index.visible])


def _bytes(large: Large, kinds: str = "") -> int:
    return sum(
        size
        for section in large.sections
        for size, kind in zip(section.sizes, section.kinds, strict=True)
        if not kinds or kind in kinds
    )


def test_it_is_large(large: Large) -> None:
    """More than 1 GB installed: Lambda's limit for a package and its layers is 250 MB, unpacked."""
    assert _bytes(large) > 1_000_000_000
    assert _bytes(large, "n") > 800_000_000


def test_a_part_of_it_with_512_mb_of_tmp(large: Large) -> None:
    """A function that uses some of it has the ephemeral storage that functions have by default."""
    found = large.run("part", tmp_bytes=512 * MIB, memory_bytes=GIB)
    assert found["value"] == [[1.0, 2.0], 5228.0]
    stats = found["stats"]
    assert 250 * MIB < stats["bytes_written"] < 350 * MIB
    assert stats["cache_limit"] == 128 * MIB
    assert found["tmp"] <= stats["bytes_written"] + stats["cache_limit"] + 8 * MIB
    assert {"pandas", "pyarrow", "scikit-learn"} <= {pin.partition("==")[0] for pin in found["loaded"]}


def test_all_of_it_with_1_gb_of_tmp(large: Large) -> None:
    """A function that uses all of it has 1 GB of ephemeral storage and 2 GB of memory."""
    found = large.run("both", tmp_bytes=GIB, memory_bytes=2 * GIB)
    assert found["value"] == [[[1.0, 2.0], 5228.0], [255, 4950, [2, 1], [1, 0], True]]
    wanted = set(LIST.with_suffix(".in").read_text().split("\n")[1:-1])
    assert wanted <= {pin.partition("==")[0] for pin in found["loaded"]}
    assert found["stats"]["bytes_written"] > 600 * MIB
    assert found["memory"] < 2 * GIB


def test_a_tmp_that_is_too_small(large: Large) -> None:
    """With too little of it the import is an error that names the file, the bytes that it needs, and what to
    set; what is imported before still works.
    """
    found = large.run("part", tmp_bytes=64 * MIB)
    assert found["error"] == "NoSpaceError"
    text = found["text"]
    [path] = [word.rstrip(":") for word in text.split() if word.startswith("/tmp/cloudimport/")]
    sizes = [
        section.sizes[section.index[own]]
        for section in large.sections
        for own in section.paths
        if path.endswith(f"/site/{own}")
    ]
    assert f"{sizes[0]} bytes are needed" in text
    assert "ephemeral storage" in text
    assert "CLOUDIMPORT_CACHE" in text
