"""One small program for each package: does something real and prints a result that can be checked.

``python programs.py NAME`` runs one. The same file runs with pip-installed packages and from a shelf;
what it prints must be the same, so nothing printed depends on paths, times or chance.
"""

import os
import sys
import tempfile


def requests() -> str:
    import requests

    request = requests.Request("GET", "https://example.org/a", params={"q": "x y"}).prepare()
    readable = os.path.getsize(requests.certs.where()) > 100_000
    session = requests.Session()
    return f"{request.url} {session.adapters['https://'].__class__.__name__} {readable}"


def certifi() -> str:
    import ssl

    import certifi

    context = ssl.create_default_context(cafile=certifi.where())
    return f"{context.cert_store_stats()['x509_ca'] > 50} {certifi.contents().count('BEGIN') > 50}"


def numpy() -> str:
    import numpy

    matrix = numpy.arange(9.0).reshape(3, 3) + numpy.eye(3)
    return f"{numpy.linalg.det(matrix):.3f} {numpy.fft.rfft([1, 2, 3, 4]).real.tolist()}"


def pandas() -> str:
    import pandas

    frame = pandas.DataFrame(
        {
            "a": [1, 2, 3],
            "b": list("xyx"),
            "t": pandas.date_range("2024-01-01", periods=3, tz="Europe/Berlin"),
        }
    )
    return f"{frame.groupby('b').a.sum().to_dict()} {frame.t.iloc[2].isoformat()}"


def scipy() -> str:
    import scipy.integrate
    import scipy.optimize
    import scipy.sparse.linalg

    area = scipy.integrate.quad(lambda x: x * x, 0, 3)[0]
    root = scipy.optimize.brentq(lambda x: x**3 - 2, 0, 2)
    solved = scipy.sparse.linalg.spsolve(scipy.sparse.csc_matrix([[2.0, 0], [0, 4]]), [2.0, 8.0])
    return f"{area:.6f} {root:.6f} {solved.tolist()}"


def sklearn() -> str:
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    features, labels = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(features, labels)
    return f"{features.shape} {model.score(features, labels):.2f}"


def matplotlib() -> str:
    os.environ.setdefault("MPLCONFIGDIR", tempfile.mkdtemp())
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    figure, axes = matplotlib.pyplot.subplots()
    axes.plot([1, 3, 2], label="λ")
    axes.set_title("$x^2$")
    axes.legend()
    path = os.path.join(tempfile.mkdtemp(), "plot.png")
    figure.savefig(path)
    with open(path, "rb") as file:
        return f"{file.read(8)!r} {os.path.getsize(path) > 5000}"


def PIL() -> str:
    import io

    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (40, 20), "white")
    ImageDraw.Draw(image).text((2, 2), "ok", fill="black", font=ImageFont.load_default())
    stream = io.BytesIO()
    image.save(stream, "JPEG")
    return (
        f"{Image.open(io.BytesIO(stream.getvalue())).size} {Image.open(io.BytesIO(stream.getvalue())).format}"
    )


def lxml() -> str:
    from lxml import etree, isoschematron

    tree = etree.fromstring("<a><b x='1'/><b x='2'/></a>")
    return f"{tree.xpath('sum(//b/@x)')} {isoschematron.extract_xsd is not None} {etree.LIBXML_VERSION[0]}"


def cryptography() -> str:
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    signature = key.sign(b"m", ec.ECDSA(hashes.SHA256()))
    key.public_key().verify(signature, b"m", ec.ECDSA(hashes.SHA256()))
    box = Fernet(Fernet.generate_key())
    return f"verified {box.decrypt(box.encrypt(b'secret'))!r}"


def pydantic() -> str:
    import pydantic

    class Model(pydantic.BaseModel):
        number: int
        names: list[str] = []

    try:
        Model.model_validate({"number": "x"})
    except pydantic.ValidationError as error:
        return f"{Model(number='5', names=['a']).model_dump_json()} {error.error_count()}"
    return "not refused"


def sqlalchemy() -> str:
    from sqlalchemy import create_engine, select
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]

    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([User(name="ada"), User(name="bob")])
        session.commit()
        return str(session.scalars(select(User.name).order_by(User.name)).all())


def boto3() -> str:
    import boto3

    client = boto3.client("s3", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
    url = client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    session = boto3.session.Session()
    return f"{url.split('?')[0]} {'Signature' in url} {len(session.get_available_services()) > 300}"


def gcs() -> str:
    import google.cloud
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client(project="p", credentials=AnonymousCredentials())
    return f"{client.bucket('b').blob('k').path} {len(list(google.cloud.__path__)) >= 1}"


def jinja2() -> str:
    import jinja2

    return jinja2.Environment().from_string("{% for x in xs %}{{ x|upper }}{% endfor %}").render(xs="abc")


def yaml() -> str:
    import yaml

    dumped = yaml.dump([1], Dumper=yaml.CSafeDumper).strip()
    return f"{yaml.safe_load('a: [1, {b: 2}]')} {yaml.__with_libyaml__} {dumped}"


def tzdata() -> str:
    import datetime
    import zoneinfo

    zoneinfo.reset_tzpath(to=())
    zone = zoneinfo.ZoneInfo("Asia/Tokyo")
    names = zoneinfo.available_timezones()
    return f"{datetime.datetime(2024, 1, 1, tzinfo=zone).utcoffset()} {len(names) > 400}"


def bs4() -> str:
    import bs4

    soup = bs4.BeautifulSoup("<p>a<b>c</b></p>", "html.parser")
    return f"{soup.b.text} {bs4.BeautifulSoup('<p>x', 'lxml').p.text}"


def networkx() -> str:
    import networkx

    graph = networkx.path_graph(5)
    return f"{networkx.shortest_path(graph, 0, 4)} {networkx.density(graph):.2f}"


def django() -> str:
    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        USE_TZ=True,
    )
    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.template import Context, Template

    call_command("migrate", verbosity=0)
    User.objects.create_user("ada", password="x")
    text = Template("{{ n|add:1 }}").render(Context({"n": 1}))
    return f"{User.objects.count()} {text} {User.objects.get().check_password('x')}"


PROGRAMS = {
    name: thing
    for name, thing in list(globals().items())
    if callable(thing) and getattr(thing, "__module__", "") == __name__
}


if __name__ == "__main__":
    print(PROGRAMS[sys.argv[1]]())
