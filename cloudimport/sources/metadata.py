"""Credentials from the host: the container endpoint and the EC2 instance metadata service (v2).

Rules: "Container credential provider" and "IMDS credential provider", AWS SDKs reference. Both
are link-local and never go through a proxy. Import budget: ``json``, on use.
"""

from __future__ import annotations

from contextlib import closing

from cloudimport.errors import ConfigurationError, DeniedError, FetchError, UnreachableError
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.http import HttpClient, Limits
from cloudimport.sources.origin import Origin, parse_url
from cloudimport.sources.proxies import Proxies
from cloudimport.sources.sigv4 import Credentials
from cloudimport.sources.wire import HttpError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_ECS = "http://169.254.170.2"
_IMDS = "http://169.254.169.254"
#: Hosts that a plain http:// endpoint may have: ECS, EKS pod identity, and loopback.
_LINK_LOCAL = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost", "::1")
#: Seconds that an IMDSv2 session is asked to last: the longest that it gives.
_SESSION_SECONDS = "21600"


def from_container(config: SourceConfig) -> Credentials:
    """Return the container's credentials (ECS, EKS pod identity, Lambda SnapStart). Raises FetchError."""
    environ = config.environ
    relative = environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    url = f"{_ECS}{relative}" if relative else environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    origin, path = _parse(url)
    if origin.scheme == "http" and origin.host not in _LINK_LOCAL and not origin.host.startswith("127."):
        raise DeniedError(f"AWS_CONTAINER_CREDENTIALS_FULL_URI: {origin} is neither https nor on this host")
    headers = {"accept": "application/json"}
    if token := _container_token(environ):
        headers["authorization"] = token
    with closing(_client(config)) as client:
        return _parse_credentials(_ask(client, "GET", origin, path, headers), str(origin))


def from_instance(config: SourceConfig) -> Credentials:
    """Return the instance role's credentials. Raises DeniedError if there is no such service."""
    base = config.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _IMDS
    origin, path = _parse(base)
    with closing(_client(config)) as client:
        return _parse_credentials(_ask_instance(client, origin, path.rstrip("/")), str(origin))


def _ask_instance(client: HttpClient, origin: Origin, path: str) -> bytes:
    try:
        token = _ask(client, "PUT", origin, f"{path}/latest/api/token", _ttl()).decode("latin-1")
    except UnreachableError as error:
        raise DeniedError(
            "there are no AWS credentials: none in the environment, no profile, no container endpoint, and "
            f"no instance metadata service ({error}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "ask unsigned"
        ) from error
    headers = {"x-aws-ec2-metadata-token": token}
    roles = f"{path}/latest/meta-data/iam/security-credentials/"
    names = _ask(client, "GET", origin, roles, headers).decode("latin-1").split()
    if not names:
        raise DeniedError(f"the instance at {origin} has no IAM role")
    return _ask(client, "GET", origin, roles + names[0], headers)


def _ttl() -> dict[str, str]:
    # S3 and IMDS want a length for a PUT without a body (RFC 9110, section 8.6).
    return {"x-aws-ec2-metadata-token-ttl-seconds": _SESSION_SECONDS, "content-length": "0"}


def _client(config: SourceConfig) -> HttpClient:
    try:
        seconds = float(config.environ.get("AWS_METADATA_SERVICE_TIMEOUT") or 1.0)
    except ValueError:
        raise ConfigurationError("AWS_METADATA_SERVICE_TIMEOUT is not a number of seconds") from None
    limits = Limits(seconds, max(seconds, 2.0), 5.0 + seconds)
    return HttpClient(limits, Proxies({}, {}), config.trusted_roots())


def _parse(url: str) -> tuple[Origin, str]:
    try:
        return parse_url(url)
    except ConfigurationError as error:
        raise DeniedError(f"the endpoint of the AWS credentials: {error}") from error


def _container_token(environ: Mapping[str, str]) -> str:
    path = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
    if not path:
        return environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    try:
        # Read each time: the file is replaced when the token rotates.
        with open(path, encoding="latin-1") as file:
            return file.read().strip()
    except OSError as error:
        raise DeniedError(f"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: cannot read {path}: {error}") from error


def _ask(client: HttpClient, method: str, origin: Origin, path: str, headers: Mapping[str, str]) -> bytes:
    try:
        response = client.request(method, origin, path, headers)
    except HttpError as error:
        raise UnreachableError(f"AWS credentials: {error}") from error
    if response.status == 200:
        return response.body
    text = f"AWS credentials: {origin}{path} answered {response.status} {response.reason}"
    raise UnreachableError(text) if response.status >= 500 else DeniedError(text)


def _parse_credentials(data: bytes, where: str) -> Credentials:
    import json

    try:
        found = json.loads(data)
        expires = found.get("Expiration")
        return Credentials(
            str(found["AccessKeyId"]),
            str(found["SecretAccessKey"]),
            found.get("Token") or None,
            parse_instant(expires) if expires else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _malformed(where, error) from error


def _malformed(where: str, error: Exception) -> FetchError:
    return DeniedError(f"{where} did not answer with AWS credentials: {type(error).__name__}: {error}")


def parse_instant(text: str) -> float:
    """Return an ISO 8601 instant in UTC (``2026-01-02T03:04:05Z``) in seconds since the epoch."""
    from datetime import datetime, timezone

    if text.endswith("Z"):
        text = text[:-1] + "+00:00"
    instant = datetime.fromisoformat(text)
    return (instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)).timestamp()
