"""The S3 source: where it asks, what it mends, what it says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudimport.errors import AbsentError, ConfigurationError, DeniedError, FetchError, UnreachableError
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from cloudimport.sources.s3 import S3Source
from cloudimport.sources.s3_endpoint import locate
from tests.support.faulty import FaultyServer
from tests.support.httpserver import HttpServer, Reply, Request

KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "SECRET"}
DATA = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one object."""
    (tmp_path / "k").write_bytes(DATA)
    return tmp_path


@pytest.fixture
def make() -> Iterator[Callable[..., S3Source]]:
    """A function that makes a source for a server's bucket, closed at the end."""
    made: list[S3Source] = []

    def make_source(endpoint: str, clock: Callable[[], float] = time.time, **settings: Any) -> S3Source:
        config = SourceConfig(environ=KEYS, endpoint_url=endpoint, read_timeout=0.5, deadline=5.0)
        made.append(S3Source("bucket", "", config._replace(**settings), clock=clock))
        return made[-1]

    yield make_source
    for source in made:
        source.close()


Make = Callable[..., S3Source]


@pytest.mark.parametrize(
    ("fault", "expected", "retryable"),
    [
        ("reset", UnreachableError, True),
        ("close", UnreachableError, True),
        ("stall", UnreachableError, True),
        ("short", UnreachableError, True),
        (500, UnreachableError, True),
        (503, UnreachableError, True),
        (400, UnreachableError, False),
        (301, UnreachableError, False),
        (403, DeniedError, False),
        ("expired", DeniedError, False),
        (404, AbsentError, False),
        ("skew", DeniedError, False),
    ],
)
@pytest.mark.parametrize("window", [(0, None), (10, 20)])
def test_each_fault_has_its_error(
    folder: Path,
    make: Make,
    fault: str | int,
    expected: type[FetchError],
    retryable: bool,
    window: tuple[int, int | None],
) -> None:
    """A fault that stays ends in one typed, one-line error with the key and the URL."""
    with FaultyServer(folder, {0: fault}) as server:
        with pytest.raises(expected) as caught:
            make(server.endpoint).read("k", *window)
        assert caught.value.key == "k"
        assert caught.value.retryable == retryable
        assert getattr(caught.value, "throttled", False) == (fault == 503)
        assert "s3://bucket/k" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["reset", "close", "stall", "short", 500, 503])
def test_one_fault_is_retried(folder: Path, fault: str | int) -> None:
    """A fault that passes is not seen through ``open_source``."""
    with FaultyServer(folder, {1: fault}) as server:
        config = SourceConfig(environ=KEYS, endpoint_url=server.endpoint, read_timeout=0.5)
        source = open_source("s3://bucket", config)
        assert source.read("k", 5, 50) == DATA[5:55]
        source.close()
        assert len(server.requests) == 2


@pytest.mark.parametrize("fault", ["reset", "close", "stall", "short", "chunked", "whole", 500, 503])
def test_filling_buffers_goes_on_where_it_broke_off(folder: Path, fault: str | int) -> None:
    """What has come is not asked for again."""
    with FaultyServer(folder, {1: fault}) as server:
        config = SourceConfig(environ=KEYS, endpoint_url=server.endpoint, read_timeout=0.5)
        source = open_source("s3://bucket", config)
        parts = [bytearray(10) for _ in range(5)]
        source.readv("k", 5, 50, map(memoryview, parts))
        source.close()
        assert b"".join(parts) == DATA[5:55]
        asked = [request.headers["range"] for request in server.requests]
        again = {"short": ["bytes=25-54"], "chunked": [], "whole": []}.get(fault, ["bytes=5-54"])
        assert asked == ["bytes=5-54", *again]


@pytest.mark.parametrize("fault", ["whole", "chunked", "hang-up"])
@pytest.mark.parametrize("window", [(0, None), (0, 7), (3, 100), (100, None), (len(DATA) - 1, 1)])
def test_servers_may_answer_in_their_own_way(
    folder: Path, make: Make, fault: str, window: tuple[int, int | None]
) -> None:
    """A server that ignores Range, sends chunks or closes gives the same bytes."""
    with FaultyServer(folder, {0: fault}) as server:
        source = make(server.endpoint)
        start, length = window
        end = None if length is None else start + length
        assert [source.read("k", *window) for _ in range(3)] == [DATA[start:end]] * 3


def test_a_whole_answer_that_is_too_short_is_an_error(folder: Path, make: Make) -> None:
    """Where Range is ignored, an object that ends too soon is found out too."""
    with FaultyServer(folder, {0: "whole"}) as server:
        for window in ((len(DATA) - 1, 2), (len(DATA) + 1, 2), (len(DATA) + 1, None)):
            with pytest.raises(UnreachableError, match="asked for bytes"):
                make(server.endpoint).read("k", *window)


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        "bytes 0-9/100",
        "bytes 10-18/100",
        "bytes 10-20/100",
        "items 10-19/100",
        "bytes 9-19/100",
        "bytes */100",
    ],
)
def test_the_range_of_an_answer_is_checked(make: Make, content_range: str) -> None:
    """A 206 must have the range that was asked for and as many bytes as it says."""
    reply = Reply(206, b"0123456789", {"Content-Range": content_range})
    with HttpServer(lambda _: reply) as server, pytest.raises(UnreachableError):
        make(server.endpoint).read("k", 10, 10)


def test_one_request_per_read_and_no_other(folder: Path, make: Make) -> None:
    """Reading makes GETs only, one each, on one connection."""
    with FaultyServer(folder) as server:
        source = make(server.endpoint)
        for window in ((0, None), (1, 2), (5, None)):
            source.read("k", *window)
        assert [request.method for request in server.requests] == ["GET"] * 3
        assert [request.headers.get("range") for request in server.requests] == [
            None,
            "bytes=1-2",
            "bytes=5-",
        ]
        assert server.connections == 1


def test_a_skewed_clock_is_mended_once_and_for_all(folder: Path, make: Make) -> None:
    """After RequestTimeTooSkewed the server's time is used, in later requests too."""
    with FaultyServer(folder, {1: "skew"}) as server:
        source = make(server.endpoint)
        assert source.read("k") == DATA
        assert source.read("k") == DATA
        stamps = [request.headers["x-amz-date"] for request in server.requests]
    ahead = time.strftime("%Y%m%dT%H", time.gmtime(time.time() + 7200))
    assert len(stamps) == 3
    assert not stamps[0].startswith(ahead)
    assert stamps[1][:11] >= ahead
    assert stamps[2][:11] >= ahead


def test_a_wrong_region_is_mended_once_and_for_all(folder: Path, make: Make) -> None:
    """After an answer that names the bucket's region, requests are signed for it."""
    with FaultyServer(folder, {1: "region"}) as server:
        source = make(server.endpoint)
        assert source.read("k") == DATA
        assert source.read("k") == DATA
        scopes = [request.headers["authorization"].split("/")[2] for request in server.requests]
    assert scopes == ["us-east-1", "eu-west-3", "eu-west-3"]


def test_a_redirect_that_goes_round_ends(folder: Path, make: Make) -> None:
    """A server that names another region each time is asked twice, not for ever."""
    with FaultyServer(folder, {0: "region"}) as server:
        with pytest.raises(DeniedError):
            make(server.endpoint).read("k")
        assert len(server.requests) == 2


def test_expired_credentials_are_renewed_once(folder: Path, make: Make) -> None:
    """After ExpiredToken the credentials are read again, and the request is signed with new ones."""
    environ = {**KEYS, "AWS_SESSION_TOKEN": "old"}

    def rotate() -> float:
        # The clock is read when a request is signed: by the second one the token is new.
        now = time.time()
        environ["AWS_SESSION_TOKEN"] = "new"
        return now

    with FaultyServer(folder, {1: "expired"}) as server:
        source = make(server.endpoint, clock=rotate, environ=environ)
        source._credentials._held = source._credentials.get()._replace(token="old")  # type: ignore[union-attr]
        assert source.read("k") == DATA
        assert [request.headers["x-amz-security-token"] for request in server.requests] == ["old", "new"]


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_keys_that_were_replaced_are_read_again(make: Make, code: str) -> None:
    """A key that the store does not know, or no longer, is looked up once more where it came from."""
    environ = {**KEYS, "AWS_ACCESS_KEY_ID": "new"}

    def answer(request: Request) -> Reply:
        if "Credential=new/" in request.headers["authorization"]:
            return Reply(body=DATA)
        return Reply(403, f"<Error><Code>{code}</Code></Error>".encode())

    with HttpServer(answer) as server:
        source = make(server.endpoint, environ=environ)
        source._credentials._held = source._credentials.get()._replace(access_key="old")  # type: ignore[union-attr]
        assert source.read("k") == DATA
        assert len(server.requests) == 2


def test_unsigned_requests_have_no_signature(folder: Path, make: Make) -> None:
    """With ``no_sign`` no credentials are looked for and none are sent."""
    with FaultyServer(folder) as server:
        assert make(server.endpoint, no_sign=True, environ={}).read("k") == DATA
        assert "authorization" not in server.requests[0].headers


def test_a_missing_bucket_is_named(make: Make) -> None:
    """NoSuchBucket is an AbsentError that says that the bucket does not exist."""
    body = b"<Error><Code>NoSuchBucket</Code><BucketName>bucket</BucketName></Error>"
    missing = pytest.raises(AbsentError, match="the bucket bucket does not exist")
    with HttpServer(lambda _: Reply(404, body)) as server, missing:
        make(server.endpoint).read("k")


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_a_refusal_has_the_code_of_s3(make: Make, code: str) -> None:
    """A DeniedError has S3's own code and a hint."""
    body = f"<Error><Code>{code}</Code><Message>two\nlines</Message></Error>".encode()
    refused = pytest.raises(DeniedError, match=rf"403 {code}: two lines \(")
    with HttpServer(lambda _: Reply(403, body)) as server, refused:
        make(server.endpoint).read("k")


def test_a_hostile_error_body_is_bounded(make: Make) -> None:
    """An error answer of any size and form ends in a short line."""
    body = b"<Error><Code>" + b"\xff\n" * 200000 + b"</Code><Region>a b\r\n</Region></Error>"
    with HttpServer(lambda _: Reply(400, body)) as server:
        with pytest.raises(FetchError) as caught:
            make(server.endpoint).read("k")
        assert len(str(caught.value)) < 600


def test_reads_through_a_proxy_that_the_environment_names(folder: Path) -> None:
    """HTTP_PROXY is used for an http:// endpoint, NO_PROXY exempts from it."""

    def handle(request: Request) -> Reply:
        return Reply(body=request.target.encode())

    with HttpServer(handle) as proxy:
        environ = {**KEYS, "HTTP_PROXY": proxy.endpoint, "AWS_ENDPOINT_URL": "http://minio.example"}
        source = S3Source("bucket", "", SourceConfig(environ=environ))
        assert source.read("k") == b"http://minio.example/bucket/k"
        source.close()


@pytest.mark.parametrize(
    ("bucket", "region", "settings", "url"),
    [
        ("shelf", "eu-west-3", {}, "https://shelf.s3.eu-west-3.amazonaws.com/"),
        ("my.shelf", "eu-west-3", {}, "https://s3.eu-west-3.amazonaws.com/my.shelf/"),
        ("Old_Bucket", "us-east-1", {}, "https://s3.us-east-1.amazonaws.com/Old_Bucket/"),
        ("shelf", "cn-north-1", {}, "https://shelf.s3.cn-north-1.amazonaws.com.cn/"),
        ("shelf", "us-east-1", {"path_style": True}, "https://s3.us-east-1.amazonaws.com/shelf/"),
        ("shelf", "x", {"endpoint_url": "http://minio:9000"}, "http://minio:9000/shelf/"),
        (
            "shelf",
            "x",
            {"endpoint_url": "http://minio:9000", "path_style": False},
            "http://shelf.minio:9000/",
        ),
        ("shelf", "x", {"endpoint_url": "https://host/base/"}, "https://host/base/shelf/"),
        ("shelf", "x", {"environ": {"AWS_ENDPOINT_URL": "http://a"}}, "http://a/shelf/"),
        (
            "shelf",
            "x",
            {"environ": {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}},
            "http://b/shelf/",
        ),
        (
            "shelf",
            "us-east-1",
            {"environ": {"AWS_ENDPOINT_URL": "http://a", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}},
            "https://shelf.s3.us-east-1.amazonaws.com/",
        ),
        (
            "shelf",
            "us-gov-west-1",
            {"environ": {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"}},
            "https://shelf.s3-fips.dualstack.us-gov-west-1.amazonaws.com/",
        ),
    ],
)
def test_locates_buckets(bucket: str, region: str, settings: dict[str, Any], url: str) -> None:
    """Regional virtual hosts where they work, path style where they do not."""
    origin, base = locate(bucket, region, SourceConfig(**settings))
    assert f"{origin}{base}" == url


@pytest.mark.parametrize("location", [{"location": "https://shelf.s3-us-west-2.amazonaws.com/k"}, {}])
def test_a_redirect_without_a_region_header_is_understood(make: Make, location: dict[str, str]) -> None:
    """Where only Location or the body name the region, that one is taken."""
    body = b"" if location else b"<Error><Code>TemporaryRedirect</Code><Region>us-west-2</Region></Error>"

    def handle(request: Request) -> Reply:
        return Reply(307, body, location) if request.number == 1 else Reply(body=b"x")

    with HttpServer(handle) as server:
        assert make(server.endpoint).read("k") == b"x"
        assert "/us-west-2/s3/" in server.requests[1].headers["authorization"]


def test_the_region_comes_from_settings_then_environment_then_profile(tmp_path: Path) -> None:
    """Region: the setting, AWS_REGION, AWS_DEFAULT_REGION, the profile, us-east-1."""
    file = tmp_path / "config"
    file.write_text("[default]\nregion = from-file\n")
    environ = {"AWS_CONFIG_FILE": str(file), "AWS_DEFAULT_REGION": "second", "AWS_REGION": "first"}
    regions = [S3Source("bucket", "", SourceConfig(environ=environ, region="set"))._region]
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CONFIG_FILE"):
        regions.append(S3Source("bucket", "", SourceConfig(environ=environ))._region)
        del environ[name]
    regions.append(S3Source("bucket", "", SourceConfig(environ=environ))._region)
    assert regions == ["set", "first", "second", "from-file", "us-east-1"]


@pytest.mark.parametrize(
    "bucket", ["a", "a b", "-a-", "arn:aws:s3:us-east-1:1:accesspoint/x", "a\nb", "é" * 5]
)
def test_refuses_what_is_no_bucket(bucket: str) -> None:
    """A name that no bucket can have is a ConfigurationError."""
    with pytest.raises(ConfigurationError):
        S3Source(bucket, "", SourceConfig())


def test_never_reads_the_environment_of_the_process(
    folder: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only ``SourceConfig.environ`` counts."""
    for name, value in {"AWS_SESSION_TOKEN": "x", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}.items():
        monkeypatch.setitem(os.environ, name, value)
    with FaultyServer(folder) as server:
        assert make("", environ={**KEYS, "AWS_ENDPOINT_URL": server.endpoint}).read("k") == DATA
        assert "x-amz-security-token" not in server.requests[0].headers
