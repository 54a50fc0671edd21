"""A shelf in an S3 bucket, written with boto3.

Conditional writes: "How to prevent object overwrites with conditional writes", Amazon S3 user guide.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cloudimport.errors import AbsentError, DeniedError, FetchError, UnreachableError
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.reading import join
from cloudimport.sources.s3_endpoint import check_bucket, custom_endpoint
from shelf_tools.stores.libraries import load
from shelf_tools.stores.listing import Entry, Unfinished

#: S3 answers 409 when another conditional write of the key is under way: ask again.
_CONFLICTS = 10
_NO_UPLOAD = "NoSuchUpload"
_MISSING = ("NoSuchKey", "404", "NotFound")
_DENIED = (
    "AccessDenied",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "403",
    "401",
)


class S3Store:
    """Objects of ``bucket`` below ``prefix``.

    Keys, region, profile and endpoint are taken from ``environ``; where it has no keys,
    botocore's own chain decides. Path style with a custom endpoint; big files by multipart.
    """

    atomic = True

    def __init__(self, bucket: str, prefix: str, environ: Mapping[str, str]) -> None:
        self._bucket = check_bucket(bucket)
        self._prefix = prefix.strip("/")
        self.url = join(f"s3://{bucket}", self._prefix) if self._prefix else f"s3://{bucket}"
        self._environ = environ
        self._lock = threading.Lock()
        self._made: Any = None
        load("boto3", "writing to S3")

    def put(self, key: str, data: bytes | Path) -> None:
        """Write an object; see ``Store.put``."""
        with self._errors(key):
            if isinstance(data, Path):
                self._client().upload_file(str(data), self._bucket, self._name(key))
            else:
                self._client().put_object(Body=data, **self._place(key))

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless it exists (``If-None-Match: *``); see ``Store.create``."""
        return self._put_if(key, data, {"IfNoneMatch": "*"})

    def replace(self, key: str, data: bytes, version: str | None) -> bool:
        """Write an object if its ETag is still ``version`` (``If-Match``); see ``Store.replace``."""
        return self.create(key, data) if version is None else self._put_if(key, data, {"IfMatch": version})

    def read_versioned(self, key: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and its ETag, or None; see ``Store.read_versioned``."""
        with self._errors(key):
            try:
                answer = self._client().get_object(**self._place(key))
                # Without its quotes: radosgw compares it as text with what it has stored.
                return answer["Body"].read(), answer["ETag"].strip('"')
            except self._client_error() as error:
                if _code(error) in _MISSING:
                    return None
                raise

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with ``prefix``; see ``Store.list``."""
        for entry in self.entries(prefix):
            yield entry.key

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield them with sizes and times; see ``Store.entries``."""
        for row in self._pages("list_objects_v2", "Contents", prefix):
            yield Entry(self._key(row), row["Size"], row["LastModified"].timestamp())

    def delete(self, key: str) -> None:
        """Remove an object; see ``Store.delete``."""
        with self._errors(key):
            self._client().delete_object(**self._place(key))

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield the uploads in parts, which cost as objects do; see ``Store.unfinished``."""
        for row in self._pages("list_multipart_uploads", "Uploads", ""):
            key, upload = self._key(row), row["UploadId"]
            with self._errors(key):
                parts = self._client().get_paginator("list_parts")
                try:
                    pages = list(parts.paginate(UploadId=upload, **self._place(key)))
                except self._client_error() as error:
                    if _code(error) == _NO_UPLOAD:  # finished meanwhile
                        continue
                    raise
            size = sum(part["Size"] for page in pages for part in page.get("Parts", ()))
            yield Unfinished(key, upload, size, row["Initiated"].timestamp())

    def discard(self, one: Unfinished) -> None:
        """Give up an upload in parts; see ``Store.discard``."""
        with self._errors(one.key):
            try:
                self._client().abort_multipart_upload(UploadId=one.handle, **self._place(one.key))
            except self._client_error() as error:
                if _code(error) != _NO_UPLOAD:
                    raise

    def _pages(self, operation: str, field: str, prefix: str) -> Iterator[Any]:
        """Yield the rows of all pages of a listing."""
        with self._errors(prefix):
            pages = self._client().get_paginator(operation)
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._name(prefix)):
                yield from page.get(field, ())

    def _key(self, row: Any) -> str:
        found: str = row["Key"]
        return found[len(self._name("")) :]

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._name(key)}

    def _put_if(self, key: str, data: bytes, condition: dict[str, str]) -> bool:
        with self._errors(key):
            for _ in range(_CONFLICTS):
                try:
                    self._client().put_object(Body=data, **condition, **self._place(key))
                    return True
                except self._client_error() as error:
                    code = _code(error)
                    if code == "PreconditionFailed" or code in _MISSING:
                        return self._is_ours(key, data, error)
                    if code != "ConditionalRequestConflict":
                        raise
        raise UnreachableError(f"{join(self.url, key)}: other writers kept it busy", key=key)

    def _is_ours(self, key: str, data: bytes, error: Any) -> bool:
        # A try whose answer was lost may have written it: its repetition then fails.
        if not error.response.get("ResponseMetadata", {}).get("RetryAttempts"):
            return False
        found = self.read_versioned(key)
        return found is not None and found[0] == data

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = _make_client(self._environ)
            return self._made

    def _client_error(self) -> Any:
        return load("botocore.exceptions", "writing to S3").ClientError

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        exceptions = load("botocore.exceptions", "writing to S3")
        transfer = load("boto3.exceptions", "writing to S3")
        try:
            yield
        except FetchError:
            raise
        except (exceptions.ClientError, exceptions.BotoCoreError, transfer.Boto3Error) as error:
            raise self._typed(error, key) from error

    def _typed(self, error: Any, key: str) -> FetchError:
        # s3transfer wraps what botocore raised.
        inner = error.__cause__ or error.__context__ if not hasattr(error, "response") else None
        cause = inner if hasattr(inner, "response") else error
        text = f"{join(self.url, key)}: {' '.join(str(cause).split())}"
        code = _code(cause)
        name = type(cause).__name__
        if code in ("NoSuchBucket", *_MISSING):
            return AbsentError(f"{text} (bucket {self._bucket})", key=key)
        if code in _DENIED or "Credential" in name or "Profile" in name or "Token" in name:
            return DeniedError(text, key=key)
        return UnreachableError(text, key=key)


def _code(error: Any) -> str:
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _make_client(environ: Mapping[str, str]) -> Any:
    boto3 = load("boto3", "writing to S3")
    config = load("botocore.config", "writing to S3").Config(
        retries={"mode": "standard", "max_attempts": 5},
        # Other servers than AWS's do not know the newer checksum headers.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        max_pool_connections=32,
        **_addressing(environ),
    )
    session = boto3.session.Session(
        aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID") or None,
        aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY") or None,
        aws_session_token=environ.get("AWS_SESSION_TOKEN") or None,
        region_name=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None,
        profile_name=environ.get("AWS_PROFILE") or None,
    )
    endpoint = custom_endpoint(SourceConfig(environ=environ))
    return session.client(
        "s3", endpoint_url=endpoint, config=config, verify=environ.get("AWS_CA_BUNDLE") or None
    )


def _addressing(environ: Mapping[str, str]) -> dict[str, Any]:
    is_custom = custom_endpoint(SourceConfig(environ=environ)) is not None
    return {"s3": {"addressing_style": "path"}} if is_custom else {}
