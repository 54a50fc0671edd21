"""Where an S3 bucket is asked for, and what S3's error answers mean. Pure.

Rules: "Virtual hosting of buckets", "Error responses", Amazon S3 user guide and API reference;
"Service-specific endpoints", AWS SDKs reference. Import budget: ``re``.
"""

from __future__ import annotations

import re

from cloudimport.errors import ConfigurationError
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.origin import Origin, parse_url
from cloudimport.sources.sigv4 import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

DEFAULT_REGION = "us-east-1"
#: Region prefix -> domain (botocore's partitions.json).
_DOMAINS = {
    "cn-": "amazonaws.com.cn",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "eusc-": "amazonaws.eu",
}
#: Region prefix -> partition of ARNs (the same file).
_PARTITIONS = {
    "cn-": "aws-cn",
    "us-gov-": "aws-us-gov",
    "us-iso-": "aws-iso",
    "us-isob-": "aws-iso-b",
    "eusc-": "aws-eusc",
}
#: Characters that stand for others in a policy ("IAM policy elements: variables and tags", IAM user guide).
_WILD = str.maketrans({"*": "${*}", "?": "${?}", "$": "${$}"})
#: What virtual-host addressing needs of a bucket's name.
_HOST_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*[a-z0-9]\Z")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}\Z")
_REGION = re.compile(r"[a-z0-9-]{1,40}\Z")
_REGION_IN_HOST = re.compile(r"s3[.-](?:fips[.-])?(?:dualstack\.)?([a-z]+(?:-[a-z]+)+-[0-9]+)\.amazonaws\.")


class S3Error(NamedTuple):
    """An error answer: S3's code ("" if none), its message, and the bucket's region if it says."""

    status: int
    code: str
    message: str
    region: str


def check_bucket(bucket: str) -> str:
    """Return ``bucket``. Raises ConfigurationError if it cannot be a bucket's name."""
    if bucket.startswith("arn:"):
        raise ConfigurationError(
            f"{bucket!r}: access points are not supported, use their s3alias as the bucket"
        )
    if not _BUCKET.match(bucket):
        raise ConfigurationError(f"{bucket!r} is not the name of an S3 bucket")
    return bucket


def custom_endpoint(config: SourceConfig) -> str | None:
    """Return the endpoint URL that is configured, or None for the region's own."""
    if config.endpoint_url:
        return config.endpoint_url
    if config.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return config.environ.get("AWS_ENDPOINT_URL_S3") or config.environ.get("AWS_ENDPOINT_URL") or None


def object_arn(region: str, bucket: str, name: str) -> str:
    """Return the ARN of an object; if its name ends in ``/*``, of all whose names begin with what is before.

    A ``*`` elsewhere in the name means itself.
    """
    partition = next((p for prefix, p in _PARTITIONS.items() if region.startswith(prefix)), "aws")
    body, wild = (name[:-1], "*") if name.endswith("/*") else (name, "")
    return f"arn:{partition}:s3:::{bucket}/{body.translate(_WILD)}{wild}"


def locate(bucket: str, region: str, config: SourceConfig) -> tuple[Origin, str]:
    """Return the origin of ``bucket`` and the path, percent-encoded, that its keys stand below.

    Path style where it is asked for, with a custom endpoint, and where the name cannot be a
    host's (a dot in it would not match S3's TLS certificate).
    """
    endpoint = custom_endpoint(config)
    origin, path = parse_url(endpoint or _regional(region, config))
    as_path = config.path_style
    if as_path is None:
        dotted = "." in bucket and origin.scheme == "https"
        as_path = bool(endpoint) or dotted or not _HOST_NAME.match(bucket)
    if as_path:
        return origin, f"{path.rstrip('/')}/{quote(bucket)}/"
    return origin._replace(host=f"{bucket}.{origin.host}"), f"{path.rstrip('/')}/"


def _regional(region: str, config: SourceConfig) -> str:
    def is_on(name: str) -> bool:
        return config.environ.get(name, "").lower() == "true"

    if not _REGION.match(region):
        raise ConfigurationError(f"{region!r} is not the name of an AWS region")
    domain = next((d for prefix, d in _DOMAINS.items() if region.startswith(prefix)), "amazonaws.com")
    service = "s3-fips" if is_on("AWS_USE_FIPS_ENDPOINT") else "s3"
    dual = ".dualstack" if is_on("AWS_USE_DUALSTACK_ENDPOINT") else ""
    return f"https://{service}{dual}.{region}.{domain}"


def parse_error(status: int, headers: dict[str, str], body: bytes) -> S3Error:
    """Return what an error answer says; nothing of it is trusted beyond its form."""
    text = body.decode("utf-8", "replace")
    region = headers.get("x-amz-bucket-region", "") or _element(text, "Region") or _region_of(headers)
    if not _REGION.match(region):
        region = ""
    return S3Error(status, _element(text, "Code")[:80], _element(text, "Message")[:300], region)


def _element(text: str, name: str) -> str:
    match = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return " ".join(match.group(1).split()) if match else ""


def _region_of(headers: dict[str, str]) -> str:
    match = _REGION_IN_HOST.search(headers.get("location", ""))
    return match.group(1) if match else ""
