"""A small program for each package that brings something of its own: does what its users do with it.

What it returns is compared, so nothing depends on chance or time. The function's name is that of the
distribution with underscores. Those in tests/integration/hello/programs.py run as well.
"""

import glob
import io
import os
import re
import runpy
import subprocess
import sys
import tempfile
import textwrap

#: What the programs of tests/integration are called, by distribution.
HELLO = {
    "requests": "requests",
    "certifi": "certifi",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "matplotlib": "matplotlib",
    "pillow": "PIL",
    "lxml": "lxml",
    "cryptography": "cryptography",
    "pydantic": "pydantic",
    "sqlalchemy": "sqlalchemy",
    "boto3": "boto3",
    "google-cloud-storage": "gcs",
    "jinja2": "jinja2",
    "pyyaml": "yaml",
    "tzdata": "tzdata",
    "beautifulsoup4": "bs4",
    "networkx": "networkx",
    "django": "django",
}


def program(subject, record):
    """Run the programs that a distribution has."""
    if subject.name in HELLO:
        record.check("hello", _hello, HELLO[subject.name])
    if subject.name in PROGRAMS:
        record.check("own", PROGRAMS[subject.name])


def _hello(name):
    folder = os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)
    found = runpy.run_path(os.path.join(folder, "integration", "hello", "programs.py"))
    return found["PROGRAMS"][name]()


def _python(folder, *arguments, **env):
    """Run an interpreter in a folder; return its status and output without the folder's name."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
    return [done.returncode] + [text.replace(folder, "<cwd>")[-2500:] for text in (done.stdout, done.stderr)]


def _write(folder, files):
    for name, text in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(textwrap.dedent(text))


def django():
    """A project with an app, whose migrations are made, listed and run by the command line."""
    with tempfile.TemporaryDirectory() as folder:
        _write(
            folder,
            {
                "site_settings.py": """
                    INSTALLED_APPS = ["django.contrib.admin", "django.contrib.auth",
                        "django.contrib.messages", "django.contrib.contenttypes",
                        "django.contrib.sessions", "shop"]
                    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite"}}
                    BACKEND = "django.template.backends.django.DjangoTemplates"
                    TEMPLATES = [{"BACKEND": BACKEND, "APP_DIRS": True}]
                    SECRET_KEY = "x"
                    DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
                    LANGUAGE_CODE = "de"
                    """,
                "shop/__init__.py": "",
                "shop/models.py": """
                    from django.db import models
                    class Thing(models.Model):
                        name = models.CharField(max_length=9)
                    """,
                "use.py": """
                    import django
                    django.setup()
                    from django.template.loader import get_template
                    from django.utils.translation import gettext
                    from shop.models import Thing
                    Thing.objects.create(name="a")
                    print(Thing.objects.count(), gettext("January"))
                    print(get_template("admin/base.html").origin.name)
                    """,
            },
        )
        env = {"DJANGO_SETTINGS_MODULE": "site_settings"}
        commands = ("makemigrations shop", "migrate -v 1", "showmigrations", "check", "help")
        said = [_python(folder, "-m", "django", *command.split(), **env) for command in commands]
        return [*said, _python(folder, "use.py", **env)]


def pytest():
    """Tests with fixtures, parameters and a failing assertion, whose rewriting shows the values."""
    with tempfile.TemporaryDirectory() as folder:
        _write(
            folder,
            {
                "conftest.py": "import pytest\n@pytest.fixture\ndef two():\n    return 2\n",
                "test_it.py": """
                    import pytest
                    @pytest.mark.parametrize("x", [1, 2])
                    def test_x(x, two, tmp_path):
                        assert [x] == [two]
                    """,
            },
        )
        status, said, _ = _python(folder, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-q")
        return [status, re.sub(r" in [0-9.]+s", "", said)]


def hypothesis():
    """A property that fails, with its smallest example, by its plug-in of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        text = """
            from hypothesis import given, settings, strategies as s
            @settings(derandomize=True, database=None, deadline=None)
            @given(s.lists(s.integers()))
            def test_x(xs):
                assert sum(xs) < 10
            """
        _write(folder, {"test_it.py": text})
        status, said, _ = _python(
            folder, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--hypothesis-seed=0"
        )
        return [status, [line for line in said.splitlines() if line.startswith(("E", "FAILED"))]]


def sphinx():
    """HTML of a small project, with a theme's files, an extension and German texts."""
    with tempfile.TemporaryDirectory() as folder:
        conf = "extensions = ['sphinx.ext.autodoc']\nlanguage = 'de'\nproject = 'x'\n"
        _write(
            folder, {"conf.py": conf, "index.rst": "x\n=\n\n.. automodule:: textwrap\n   :members: dedent\n"}
        )
        status, said, bad = _python(folder, "-m", "sphinx", "-q", "-b", "html", ".", "out")
        made = sorted(os.path.relpath(p, folder) for p in glob.glob(folder + "/out/**", recursive=True))
        with open(os.path.join(folder, "out", "index.html")) as file:
            return [status, said, bad, made, "dedent" in file.read()]


def docutils():
    """HTML with the style sheet that it reads by path; LaTeX."""
    from docutils.core import publish_string

    text = "Title\n=====\n\n.. math:: x^2\n\n.. include:: <isonum.txt>\n\n|copy|\n"
    said = [publish_string(text, writer=writer).decode() for writer in ("html5", "latex")]
    return [[len(one), "html5_polyglot" in one or "stylesheet" in one, "©" in one] for one in said]


def setuptools():
    """Building a wheel of a project with package data, by the command and as a build backend."""
    with tempfile.TemporaryDirectory() as folder:
        _write(
            folder,
            {
                "pyproject.toml": """
                    [build-system]
                    requires = ["setuptools"]
                    build-backend = "setuptools.build_meta"
                    [project]
                    name = "built"
                    version = "1"
                    """,
                "built/__init__.py": "x = 1\n",
                "built/data.txt": "data",
            },
        )
        code = "import setuptools.build_meta as b, os; os.mkdir('d'); print(b.build_wheel('d'))"
        status, said, _ = _python(folder, "-c", code)
        return [
            status,
            said.splitlines()[-1:],
            _python(folder, "-c", "import setuptools, distutils as d; print(d)"),
        ]


def pip():
    """Listing and checking an environment, and what its vendored modules say."""
    import pip._vendor.certifi

    with tempfile.TemporaryDirectory() as folder:
        said = [_python(folder, "-m", "pip", *command) for command in (["--version"], ["check"], ["debug"])]
        kept = [[status, out.splitlines()[:3]] for status, out, _ in said]
    return [*kept, pip._vendor.certifi.where()]


def ruff():
    """Checking a file by the executable that the wheel brings, by its module and by its script."""
    with tempfile.TemporaryDirectory() as folder:
        _write(folder, {"a.py": "import os\nx=1\n"})
        return [
            _python(folder, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "a.py"),
            _python(folder, "-m", "ruff", "format", "--no-cache", "--diff", "a.py"),
        ]


def cmake():
    """Configuring a project without languages, which reads cmake's own modules."""
    import cmake as package

    with tempfile.TemporaryDirectory() as folder:
        text = "cmake_minimum_required(VERSION 3.15)\nproject(x NONE)\ninclude(CheckCSourceCompiles)\n"
        _write(folder, {"CMakeLists.txt": text + "message(STATUS ${CMAKE_ROOT})\n"})
        status, said, bad = _python(folder, "-c", "import cmake; cmake.cmake()", "-S", ".", "-B", "out")
        said = [status, re.sub(r"\([\d.]+s\)", "", said), bad]  # how long it took is no result
        program = [sys.executable, "-m", "cmake", "--help-module-list"]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        return [said, done.returncode, len(done.stdout.splitlines()), package.CMAKE_BIN_DIR]


def flask():
    """An application with a template and static files, and the command line's routes."""
    with tempfile.TemporaryDirectory() as folder:
        _write(
            folder,
            {
                "app.py": """
                    from flask import Flask, render_template
                    app = Flask(__name__)
                    @app.get("/")
                    def index():
                        return render_template("a.html", x="<")
                    """,
                "templates/a.html": "{{ x }}",
                "use.py": "import app\nc = app.app.test_client()\nprint(c.get('/').text, c.get('/x'))\n",
            },
        )
        return [_python(folder, "use.py"), _python(folder, "-m", "flask", "routes")]


def fastapi():
    """A route with a model, and the schema of it all."""
    import fastapi
    import pydantic

    class Thing(pydantic.BaseModel):
        x: int

    app = fastapi.FastAPI()

    @app.post("/{a}")
    def post(a: int, thing: Thing) -> Thing:
        return thing

    return app.openapi()


def uvicorn():
    """Serving one request in this process, with parts that are loaded by name."""
    from uvicorn import Config

    async def app(scope, receive, send):
        pass

    config = Config(app)
    config.load()
    return [
        type(config.loaded_app).__name__,
        config.http_protocol_class.__name__,
        str(config.ws_protocol_class),
    ]


def gunicorn():
    """Checking a configuration, and the workers that it finds by name."""
    from gunicorn.util import load_class

    with tempfile.TemporaryDirectory() as folder:
        _write(folder, {"app.py": "def app(environ, start):\n    return []\n"})
        said = _python(folder, "-m", "gunicorn", "--check-config", "app:app")
    return [said, [load_class(name).__name__ for name in ("sync", "gthread")]]


def aiohttp():
    """A server and a client in one process."""
    import asyncio

    from aiohttp import ClientSession, web

    async def main():
        async def handle(request):
            return web.Response(text=request.match_info["name"])

        app = web.Application()
        app.add_routes([web.get("/{name}", handle)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}/ada") as response:
            said = await response.text()
        await runner.cleanup()
        return said

    return asyncio.run(main())


def matplotlib():
    """Pictures in several formats and styles, with fonts and mathematics."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, style

    sizes = []
    for name in ("default", "ggplot", "dark_background"):
        with style.context(name):
            figure = pyplot.figure()
            figure.gca().set_title("$x^2$ ä")
            for kind in ("png", "svg", "pdf", "ps"):
                data = io.BytesIO()
                figure.savefig(data, format=kind, metadata=_UNDATED.get(kind))
                sizes.append([name, kind, kind in ("svg", "ps") or len(data.getvalue())])
            pyplot.close(figure)
    return [sizes, len(style.available), matplotlib.get_data_path()]


#: What would say when a picture was made.
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def scikit_learn():
    """Bundled data sets, and a fit in worker processes."""
    from sklearn import datasets, ensemble, model_selection

    data = datasets.load_iris()
    forest = ensemble.RandomForestClassifier(10, random_state=0)
    scores = model_selection.cross_val_score(forest, data.data, data.target, n_jobs=2)
    images = datasets.load_sample_images()
    return [[round(score, 6) for score in scores], data.filename, [image.shape for image in images.images]]


def scikit_image():
    """Bundled pictures, and attributes that stubs declare."""
    import skimage
    from skimage import data, filters

    camera = data.camera()
    return [camera.shape, float(round(filters.sobel(camera).mean(), 8)), sorted(dir(skimage))[:50]]


def pyarrow():
    """Parquet and CSV through C++ code that opens by itself; the folders that it names."""
    import pyarrow
    from pyarrow import csv, parquet

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.parquet")
        parquet.write_table(pyarrow.table({"a": [1, 2]}), path)
        table = parquet.read_table(path).to_pydict()
    found = sorted(glob.glob(os.path.dirname(pyarrow.__file__) + "/**/*.csv*", recursive=True))[:1]
    read = [csv.read_csv(path).num_rows for path in found]
    return [table, read, pyarrow.get_include(), pyarrow.get_library_dirs()[0], pyarrow.get_libraries()]


def polars():
    """Queries, and a file of a package read by Rust code."""
    import polars
    import sklearn

    frame = polars.DataFrame({"a": [1, 2, 3]}).lazy().filter(polars.col("a") > 1).collect()
    path = os.path.join(os.path.dirname(sklearn.__file__), "datasets", "data", "iris.csv")
    return [frame.to_dict(as_series=False), polars.read_csv(path, has_header=False, skip_rows=1).shape]


def onnxruntime():
    """A session from a model that the wheel brings, opened by C++ code."""
    import onnxruntime
    from onnxruntime.datasets import get_example

    path = get_example("sigmoid.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [path, [i.name for i in session.get_inputs()], onnxruntime.get_available_providers()]


def opencv_python_headless():
    """A picture written and read, and the cascades that come along."""
    import cv2
    import numpy

    image = numpy.full((8, 8, 3), 7, numpy.uint8)
    fine, data = cv2.imencode(".png", image)
    folder = cv2.data.haarcascades if hasattr(cv2, "data") else ""
    names = sorted(os.listdir(folder))
    cascade = folder + "haarcascade_eye.xml"
    read = hasattr(cv2, "CascadeClassifier") and not cv2.CascadeClassifier(cascade).empty()
    return [fine, int(cv2.imdecode(data, 1).sum()), folder, names, read]


def shapely():
    """A union, and the version of the library that comes along."""
    import shapely

    return [shapely.union(shapely.box(0, 0, 1, 1), shapely.box(0, 0, 2, 1)).wkt, shapely.geos_version_string]


def sympy():
    """Solving, printing, and code that is generated and compiled in Python."""
    import sympy

    x = sympy.symbols("x")
    function = sympy.lambdify(x, sympy.sin(x) / x)
    return [str(sympy.solve(x**2 - 2, x)), sympy.latex(sympy.Integral(x**2, x)), round(function(1.0), 9)]


def google_cloud_firestore():
    """A client without a server, over gRPC, and a message of the namespace's other distributions."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import firestore
    from google.rpc import status_pb2

    client = firestore.Client(project="p", credentials=AnonymousCredentials())
    return [client.document("a/b").path, str(status_pb2.Status(code=1))]


def azure_storage_blob():
    """A client without a server, of a package in a nested namespace."""
    import azure
    from azure.storage.blob import BlobClient

    client = BlobClient("https://account.example.org", "container", "blob")
    return [client.url, list(azure.__path__)]


def openai():
    """A client without a server, and its lazy attributes."""
    import openai

    client = openai.OpenAI(api_key="x", base_url="http://127.0.0.1:9")
    return [str(client.base_url), type(client.chat.completions).__name__, len(dir(openai))]


def opentelemetry_sdk():
    """A span, and the propagators and context that entry points name."""
    from opentelemetry import context, propagate
    from opentelemetry.sdk.trace import TracerProvider

    with TracerProvider().get_tracer("x").start_as_current_span("y") as span:
        recording = span.is_recording()
    return [recording, sorted(propagate.get_global_textmap().fields), type(context._RUNTIME_CONTEXT).__name__]


def transformers():
    """A tokenizer made here, a configuration by its name, and the table of lazy modules."""
    import transformers
    from transformers import AutoConfig, BertConfig

    config = AutoConfig.for_model("bert", hidden_size=12, num_attention_heads=2)
    return [config.hidden_size, isinstance(config, BertConfig), len(dir(transformers)), transformers.__file__]


def nltk():
    """Stemming, tokenizing without data, and the error for data that are not there."""
    import nltk
    from nltk.stem import PorterStemmer

    try:
        nltk.data.find("tokenizers/punkt")
        error = ""
    except LookupError as failure:
        error = str(failure)[:400]
    return [PorterStemmer().stem("running"), nltk.wordpunct_tokenize("a b, c"), error]


def babel():
    """Locales, read as pickles beside the package."""
    import datetime

    import babel
    from babel import dates, numbers

    when = datetime.datetime(2024, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)
    names = ("de", "ar", "zh_Hant", "fr_CA")
    said = [[dates.format_datetime(when, locale=n), numbers.format_decimal(1234.5, locale=n)] for n in names]
    return [said, len(babel.localedata.locale_identifiers())]


def pygments():
    """All lexers by name, and a plug-in's table; HTML."""
    from pygments import formatters, highlight, lexers, styles

    text = highlight("x = 1", lexers.get_lexer_by_name("python"), formatters.get_formatter_by_name("html"))
    return [text, len(list(lexers.get_all_lexers())), sorted(styles.get_all_styles())]


def rich():
    """A table, a traceback with source lines, and data modules that are loaded late."""
    from rich.console import Console
    from rich.table import Table
    from rich.traceback import Traceback

    console = Console(file=io.StringIO(), width=80, color_system=None)
    table = Table("a")
    table.add_row(":smiley:")
    console.print(table)
    try:
        Table(row_styles=1)._render(1, 2)
    except Exception:  # noqa: BLE001
        console.print(Traceback(width=80))
    return console.file.getvalue()


def jsonschema():
    """A schema of each draft, from another distribution's data."""
    import jsonschema
    from jsonschema import validators

    errors = jsonschema.Draft202012Validator({"type": "object", "required": ["a"]}).iter_errors({})
    return [[error.message for error in errors], sorted(map(str, validators._META_SCHEMAS))]


def markdown():
    """Extensions by entry point and by name."""
    import markdown

    return markdown.markdown(
        "a | b\n--|--\n1 | 2\n\n[TOC]\n\n# x", extensions=["tables", "toc", "markdown.extensions.extra"]
    )


def cffi():
    """A library of C by its interface, and a module that is compiled and loaded by path."""
    import cffi

    ffi = cffi.FFI()
    ffi.cdef("double sqrt(double x);")
    return ffi.dlopen("libm.so.6").sqrt(9.0)


def psutil():
    """This process."""
    import psutil

    return [psutil.Process().is_running(), psutil.Process().pid == os.getpid()]


def greenlet():
    """Switching back and forth, and its header's place."""
    import greenlet

    order = []
    child = greenlet.greenlet(lambda: (order.append(1), child.parent.switch(), order.append(3)))
    child.switch()
    order.append(2)
    child.switch()
    return [order, os.path.exists(os.path.join(os.path.dirname(greenlet.__file__), "greenlet.h"))]


def orjson():
    """There and back."""
    import orjson

    return orjson.dumps(orjson.loads('{"a": [1, 2.5, null]}')).decode()


def protobuf():
    """A message that is made here, its text form, and which implementation is at work."""
    from google.protobuf import descriptor_pool, json_format, struct_pb2
    from google.protobuf.internal import api_implementation

    message = struct_pb2.Struct()
    message.update({"a": 1})
    pool = descriptor_pool.Default().FindFileByName("google/protobuf/struct.proto")
    return [json_format.MessageToJson(message), api_implementation.Type(), pool.package]


def grpcio():
    """A server and a client in one process, and the root certificates that come along."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    handler = grpc.method_handlers_generic_handler(
        "s", {"m": grpc.unary_unary_rpc_method_handler(lambda request, context: request + b"!")}
    )
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        said = channel.unary_unary("/s/m")(b"x", timeout=20).decode()
    server.stop(None)
    return [said, type(grpc.ssl_channel_credentials()).__name__]


def imageio():
    """A picture there and back, by plug-ins that are loaded by name."""
    import imageio.v3
    import numpy

    data = imageio.v3.imwrite("<bytes>", numpy.zeros((4, 4, 3), numpy.uint8), extension=".png")
    return [imageio.v3.imread(data).shape, sorted(imageio.config.known_plugins)]


def python_dateutil():
    """A zone from the archive that comes along."""
    import dateutil.parser
    from dateutil.zoneinfo import get_zonefile_instance

    zones = get_zonefile_instance()
    return [str(dateutil.parser.parse("3 Jan 2024 4pm")), len(zones.zones), str(zones.get("Europe/Berlin"))]


def pytz():
    """A zone from its file, and all of them."""
    import datetime

    import pytz

    zone = pytz.timezone("Europe/Berlin")
    return [
        str(datetime.datetime(2024, 7, 1, tzinfo=datetime.timezone.utc).astimezone(zone)),
        len(pytz.all_timezones),
        sorted(pytz.country_names)[:3],
    ]


def lxml():
    """Schematron, whose style sheets C code opens by path; XSLT and a catalogue of HTML."""
    from lxml import etree, html, isoschematron

    schema = etree.fromstring(
        '<schema xmlns="http://purl.oclc.org/dsdl/schematron"><pattern><rule context="a">'
        '<assert test="b">no b</assert></rule></pattern></schema>'
    )
    checker = isoschematron.Schematron(schema)
    folder = os.path.join(os.path.dirname(isoschematron.__file__), "resources")
    parsed = [
        etree.parse(path).getroot().tag for path in sorted(glob.glob(folder + "/**/*.xsl", recursive=True))
    ]
    return [checker.validate(etree.fromstring("<a/>")), parsed, html.fromstring("<p>x").tag]


def pillow():
    """Fonts through FreeType, which opens by itself, and all formats that plug-ins know."""
    from PIL import Image, ImageFont, features

    try:
        import matplotlib

        path = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
        font = ImageFont.truetype(path, 12)
    except ImportError:
        font = ImageFont.load_default(12)
    Image.init()
    return [
        font.getbbox("x"),
        sorted(Image.EXTENSION)[:90],
        features.version("freetype2"),
    ]


def jinja2():
    """Templates and their errors with source lines; PackageLoader of a package in the current folder."""
    with tempfile.TemporaryDirectory() as folder:
        _write(
            folder,
            {
                "pages/__init__.py": "",
                "pages/templates/a.html": "{% for x in xs %}\n{{ x.y }}\n{% endfor %}",
                "use.py": """
                    import jinja2, traceback
                    loader = jinja2.PackageLoader("pages")
                    env = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined)
                    print(env.list_templates())
                    try:
                        env.get_template("a.html").render(xs=[1])
                    except jinja2.UndefinedError:
                        traceback.print_exc()
                    """,
            },
        )
        return _python(folder, "use.py")


def click():
    """A command with its help, and its completion script."""
    import click
    from click.testing import CliRunner

    @click.command()
    @click.option("--n", default=1, help="How many.")
    def go(n):
        """Go."""
        click.echo(n)

    return [CliRunner().invoke(go, [option]).output for option in ("--help", "--n=2", "--m")]


def attrs():
    """Classes made by exec, whose sources linecache knows."""
    import inspect

    import attr
    import attrs

    @attrs.define
    class A:
        x: int = attrs.field(validator=attr.validators.instance_of(int))

    return [repr(A(1)), inspect.getsource(A.__init__), str(inspect.signature(A))]


def zope_interface():
    """An interface, adapters, and whether the C code is at work."""
    import zope
    from zope import interface

    class I(interface.Interface):  # noqa: E742
        pass

    @interface.implementer(I)
    class A:
        pass

    return [I.providedBy(A()), sorted(zope.__path__), interface.interface.InterfaceClass.__mro__[1].__name__]


PROGRAMS = {
    name.replace("_", "-"): thing
    for name, thing in list(globals().items())
    if callable(thing) and not name.startswith("_") and getattr(thing, "__module__", "") == __name__
}
del PROGRAMS["program"]
