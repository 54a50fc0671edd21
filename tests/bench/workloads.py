"""What is measured: packages, and the first result that a program gets from them.

A first result is more than the import, and needs no network: a request that is prepared, a sum, a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PINS = Path(__file__).parent / "pins"


@dataclass(frozen=True)
class Workload:
    """A program of one or a few packages."""

    name: str
    #: What is asked for, without versions (``pins`` has them, with all dependencies).
    wanted: tuple[str, ...]
    #: The import statements, and after them what makes the first result.
    imports: str
    first: str = "pass"
    #: Measured more often: the headline quotes it.
    is_quoted: bool = False
    #: One of the popular packages of SOCK's figure 7 (Oakes et al., USENIX ATC 2018).
    is_popular: bool = False
    #: The workload whose pins it has, if not its own; and the only ways that are measured, if not all.
    pinned_as: str = ""
    ways: tuple[str, ...] = ()

    def pins(self, version: str) -> Path:
        """Return the requirements file with exact pins for a Python version, such as ``3.11``."""
        return PINS / version / f"{self.pinned_as or self.name}.txt"


def _plain(name: str, package: str = "", first: str = "pass") -> Workload:
    return Workload(name, (package or name,), f"import {name}", first, is_popular=True)


#: The workload that imports all modules of a package: laziness must not punish those who use it all.
EVERYTHING = "all-of-pandas"

_ALL = (
    Workload(
        "requests",
        ("requests",),
        "import requests",
        "requests.Request('GET', 'https://example.org/', params={'q': 1}).prepare().url",
        is_quoted=True,
        is_popular=True,
    ),
    Workload(
        "numpy", ("numpy",), "import numpy", "numpy.linalg.inv(numpy.eye(3) * 2).sum()", is_popular=True
    ),
    Workload(
        "pandas",
        ("pandas",),
        "import pandas",
        "pandas.DataFrame({'a': [1, 2, 2], 'b': [3.0, 4, 5]}).groupby('a').sum().to_csv()",
        is_quoted=True,
        is_popular=True,
    ),
    Workload(
        "scikit-learn",
        ("scikit-learn",),
        "from sklearn.linear_model import LogisticRegression",
        "LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]).predict([[2.5]])",
    ),
    Workload(
        "polars",
        ("polars",),
        "import polars",
        "polars.DataFrame({'a': [1, 2, 2]}).group_by('a').len().sort('a').rows()",
        is_quoted=True,
    ),
    Workload(
        "pyarrow",
        ("pyarrow",),
        "import pyarrow, pyarrow.parquet",
        "pyarrow.parquet.write_table(pyarrow.table({'a': [1, 2]}), pyarrow.BufferOutputStream())",
    ),
    Workload(
        "matplotlib",
        ("matplotlib",),
        "import io, matplotlib; matplotlib.use('agg'); import matplotlib.pyplot as plt",
        "plt.plot([1, 3, 2]); plt.savefig(io.BytesIO(), format='png')",
        is_popular=True,
    ),
    Workload(
        "boto3",
        ("boto3",),
        "import boto3",
        "boto3.client('s3', region_name='eu-west-1', aws_access_key_id='a', aws_secret_access_key='b')"
        ".generate_presigned_url('get_object', {'Bucket': 'b', 'Key': 'k'})",
        is_quoted=True,
        is_popular=True,
    ),
    Workload(
        "django",
        ("django",),
        "import django.conf; django.conf.settings.configure(SECRET_KEY='k', ALLOWED_HOSTS=['*'],"
        " ROOT_URLCONF=__name__); urlpatterns = []; import django; django.setup();"
        " from django.test import RequestFactory; from django.core.handlers.wsgi import WSGIHandler",
        "WSGIHandler().get_response(RequestFactory().get('/')).status_code",
        is_popular=True,
    ),
    Workload("sympy", ("sympy",), "import sympy", "sympy.diff(sympy.sin(sympy.Symbol('x')) ** 2)"),
    Workload(
        "google-cloud-storage",
        ("google-cloud-storage",),
        "from google.cloud import storage; from google.auth.credentials import AnonymousCredentials",
        "storage.Client(project='p', credentials=AnonymousCredentials()).bucket('b').blob('o').public_url",
    ),
    Workload(
        "onnxruntime",
        ("onnxruntime",),
        "import onnxruntime, onnxruntime.datasets",
        "onnxruntime.InferenceSession(onnxruntime.datasets.get_example('sigmoid.onnx')).get_inputs()[0].name",
    ),
    Workload(
        "fastapi",
        ("fastapi",),
        "from fastapi import FastAPI",
        "app = FastAPI(); app.get('/')(lambda: {'a': 1}); app.openapi()",
    ),
    Workload(
        "transformers",
        ("transformers",),
        "from transformers import BertConfig, PreTrainedTokenizerFast",
        "BertConfig().to_json_string()",
    ),
    _plain("simplejson", first="simplejson.loads(simplejson.dumps([1]))"),
    _plain("six", first="six.text_type(1)"),
    _plain("scipy", first="__import__('scipy.linalg').linalg.det([[1.0, 2], [3, 4]])"),
    _plain("flask", first="flask.Flask('a').test_client().get('/').status_code"),
    _plain("jinja2", first="jinja2.Template('{{ a }}').render(a=1)"),
    _plain("werkzeug", first="__import__('werkzeug.routing').routing.Map([])"),
    _plain(
        "sqlalchemy", first="sqlalchemy.create_engine('sqlite://').connect().scalar(sqlalchemy.text('1'))"
    ),
    Workload(
        "protobuf",
        ("protobuf",),
        "from google.protobuf import struct_pb2",
        "struct_pb2.Value(string_value='a').SerializeToString()",
        is_popular=True,
    ),
    _plain("psycopg2", "psycopg2-binary", "psycopg2.extensions.make_dsn(dbname='a')"),
    _plain("yaml", "PyYAML", "yaml.safe_load('a: [1]')"),
    Workload(
        "cryptography",
        ("cryptography",),
        "from cryptography.fernet import Fernet",
        "Fernet(Fernet.generate_key()).encrypt(b'a')",
        is_popular=True,
    ),
    _plain("pytest", first="pytest.approx(1.0)"),
    _plain("setuptools", first="setuptools.find_packages('.')"),
    _plain("httplib2", first="httplib2.Http()"),
    Workload(
        EVERYTHING,
        ("pandas",),
        """\
import importlib, pkgutil, pandas
for _module in pkgutil.walk_packages(pandas.__path__, "pandas.", onerror=lambda name: None):
    try:
        importlib.import_module(_module.name)
    except BaseException:
        pass  # what is not installed, as under pip; pytest's Skipped""",
        pinned_as="pandas",
        ways=("zip", "zip compiled", "local", "cold", "boot"),
    ),
)
WORKLOADS = {workload.name: workload for workload in _ALL}
