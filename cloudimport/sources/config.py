"""What a source needs to know about the world, as one immutable value.

Import budget: ``typing``. (A ``NamedTuple``: ``dataclasses`` costs 12 ms of CPU at import, it
loads ``inspect``.)
"""

from __future__ import annotations

from types import MappingProxyType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

_NOTHING: Mapping[str, str] = MappingProxyType({})


class SourceConfig(NamedTuple):
    """Settings of a source. Times are in seconds. None means: what ``environ`` says, else the default.

    ``environ`` is the process's environment as the settings module saw it: sources read the
    standard AWS and proxy variables from it and hand it to helper processes; they never look
    at ``os.environ``.
    """

    environ: Mapping[str, str] = _NOTHING
    #: AWS region; else AWS_REGION, AWS_DEFAULT_REGION, the profile's region, us-east-1.
    region: str | None = None
    #: S3 endpoint; else AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the region's own.
    endpoint_url: str | None = None
    #: True: ``endpoint/bucket/key``. None: where it is needed.
    path_style: bool | None = None
    #: PEM file of trusted roots; else AWS_CA_BUNDLE, SSL_CERT_FILE, the system's.
    ca_bundle: str | None = None
    connect_timeout: float = 5.0
    #: Longest silence of a server.
    read_timeout: float = 15.0
    #: Limit of one read with all its attempts.
    deadline: float = 60.0
    #: At least so many attempts, and more until so many seconds have gone.
    attempts: int = 5
    patience: float = 8.0
    #: AWS profile, chosen on purpose: wins over keys in the environment. Else AWS_PROFILE.
    profile: str | None = None
    #: Send unsigned requests: for public buckets.
    no_sign: bool = False
    #: ``{"http": url, "https": url, "no": "host,.suffix"}``; else HTTP_PROXY, HTTPS_PROXY, NO_PROXY.
    proxies: Mapping[str, str] | None = None
    #: ``sys.path`` of helper processes; empty: this process's when the source is made. It must
    #: not hold a site tree, whose folders look like empty packages to a helper.
    helper_path: tuple[str, ...] = ()

    def trusted_roots(self) -> str | None:
        """Return the PEM file of trusted roots, or None for the system's."""
        return (
            self.ca_bundle or self.environ.get("AWS_CA_BUNDLE") or self.environ.get("SSL_CERT_FILE") or None
        )
