"""``samples.py FOLDER``: write files of many formats, with the libraries that read them in ``ways.py``."""

import json
import os
import shutil
import sqlite3
import sys

folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)


def path(name):
    return os.path.join(folder, name)


rows = [(n, n * n % 7, n / 3) for n in range(200)]
with open(path("table.csv"), "w") as file:
    file.write("a,b,c\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
with open(path("table.xml"), "w") as file:
    file.write("<rows>" + "".join(f"<row a='{a}' b='{b}'/>" for a, b, _ in rows) + "</rows>")
with open(path("shapes.json"), "w") as file:
    point = {"type": "Feature", "properties": {"n": 1}, "geometry": {"type": "Point", "coordinates": [7, 46]}}
    json.dump({"type": "FeatureCollection", "features": [point]}, file)
connection = sqlite3.connect(path("table.sqlite"))
connection.execute("create table t (a, b, c)")
connection.executemany("insert into t values (?, ?, ?)", rows)
connection.commit()
connection.close()

import numpy  # noqa: E402

table = numpy.array(rows)
table.tofile(path("table.bin"))
numpy.save(path("table.npy"), table)

import h5py  # noqa: E402

with h5py.File(path("table.h5"), "w") as file:
    file["t"] = table

import pyarrow  # noqa: E402
import pyarrow.feather  # noqa: E402
import pyarrow.parquet  # noqa: E402

arrow = pyarrow.table({"a": table[:, 0], "b": table[:, 1]})
pyarrow.parquet.write_table(arrow, path("table.parquet"))
pyarrow.feather.write_feather(arrow, path("table.feather"))

import safetensors.numpy  # noqa: E402

safetensors.numpy.save_file({"t": table}, path("table.safetensors"))

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

tokenizer = Tokenizer(models.WordLevel({"to": 0, "be": 1, "[UNK]": 2}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.save(path("tokenizer.json"))

import lightgbm  # noqa: E402

small = {"verbose": -1, "num_threads": 1, "min_data": 1, "deterministic": True}
lightgbm.train(small, lightgbm.Dataset(table[:, :2], table[:, 2]), 3).save_model(path("trees.txt"))

import xgboost  # noqa: E402

xgboost.train({"nthread": 1}, xgboost.DMatrix(table[:, :2], table[:, 2]), 3).save_model(path("trees.json"))

import sentencepiece  # noqa: E402

with open(path("words.txt"), "w") as file:
    file.write("to be or not to be that is the question\n" * 50)
sentencepiece.SentencePieceTrainer.train(
    input=path("words.txt"), model_prefix=path("words"), vocab_size=19, num_threads=1, minloglevel=2
)

import soundfile  # noqa: E402

soundfile.write(path("tone.wav"), numpy.sin(numpy.arange(4000) / 20), 8000)

import rasterio  # noqa: E402

grid = {"driver": "GTiff", "width": 20, "height": 10, "count": 1, "dtype": "float64", "crs": "EPSG:2056"}
with rasterio.open(path("grid.tif"), "w", transform=rasterio.Affine(1, 0, 0, 0, -1, 0), **grid) as image:
    image.write(table[:, 2].reshape(1, 10, 20))

from PIL import Image  # noqa: E402

Image.new("RGB", (8, 8), (200, 30, 20)).save(path("red.png"))

import fontTools  # noqa: E402, F401
import matplotlib  # noqa: E402

font = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
shutil.copy(font, path("letters.ttf"))
# So much that nothing here is materialised because it is small.
with open(path("large.bin"), "wb") as file:
    file.write(bytes(range(256)) * 16384)
