"""AWS credentials: which source is configured, and keeping what it gives fresh.

The order is botocore's ("Credentials", boto3 guide). What needs no AWS SDK is done here; the
rest (SSO, roles, processes, web identity) by botocore in a helper process. The source is chosen
by what is configured, never by what fails. Import budget: ``threading``; others where needed.
"""

from __future__ import annotations

import threading
import time

from cloudimport.errors import DeniedError, FetchError
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.profiles import Profiles
from cloudimport.sources.sigv4 import Credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Load = Callable[[], Credentials]

#: Seconds before expiry at which new credentials are fetched. IMDS and the container endpoint
#: give new ones at least 5 minutes before.
_EARLY = 300.0
#: Seconds between two tries to renew credentials that still hold.
_PAUSE = 10.0

#: Settings of a profile that only botocore can follow, before and after its static keys.
_BEFORE_KEYS = ("role_arn", "web_identity_token_file", "sso_session", "sso_start_url", "sso_account_id")
_AFTER_KEYS = ("credential_process", "login_session")


class CredentialChain:
    """Credentials for signing, from the one source that is configured. Thread-safe."""

    def __init__(
        self, config: SourceConfig, profiles: Profiles, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._profiles = profiles
        self._clock = clock
        self._lock = threading.Lock()
        self._held: Credentials | None = None
        self._tried = 0.0

    def get(self) -> Credentials:
        """Return credentials that have not expired. Raises DeniedError (none, refused)."""
        held = self._held
        if held is not None and not self._is_due(held):
            return held
        # One thread loads, the others wait for what it gets: they could not sign meanwhile.
        with self._lock:
            if self._held is None or self._is_due(self._held):
                self._held = self._reload(self._held)
            return self._held

    def renew(self, stale: Credentials | None) -> bool:
        """Replace credentials that the store calls expired; return whether there are others now."""
        with self._lock:
            if self._held == stale:
                self._held = choose(self._config, self._profiles)()
            return self._held != stale

    def forget(self) -> None:
        """In a forked child: take a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def _is_due(self, held: Credentials) -> bool:
        if held.expires is None:
            return False
        left = held.expires - self._clock()
        return left <= 0 or (left < _EARLY and abs(self._clock() - self._tried) >= _PAUSE)

    def _reload(self, held: Credentials | None) -> Credentials:
        self._tried = self._clock()
        try:
            return choose(self._config, self._profiles)()
        except FetchError:
            if held is not None and held.expires is not None and held.expires > self._clock():
                return held
            raise


def choose(config: SourceConfig, profiles: Profiles) -> Load:
    """Return the loader of the credential source that is configured. Raises DeniedError."""
    environ = config.environ
    if config.profile is None:
        if environ.get("AWS_ACCESS_KEY_ID") or environ.get("AWS_SECRET_ACCESS_KEY"):
            return lambda: _from_environ(config)
        if environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") and environ.get("AWS_ROLE_ARN"):
            return lambda: _from_botocore(config, profiles)
    settings = profiles.settings()
    if any(name in settings for name in _BEFORE_KEYS):
        return lambda: _from_botocore(config, profiles)
    if "aws_access_key_id" in settings:
        return lambda: _from_profile(settings.get, profiles.name)
    if any(name in settings for name in _AFTER_KEYS):
        return lambda: _from_botocore(config, profiles)
    return lambda: _from_host(config)


def _from_environ(config: SourceConfig) -> Credentials:
    get = config.environ.get
    access, secret = get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")
    if not access or not secret:
        missing = "AWS_SECRET_ACCESS_KEY" if access else "AWS_ACCESS_KEY_ID"
        raise DeniedError(f"AWS credentials in the environment are not complete: {missing} is not set")
    return Credentials(access, secret, get("AWS_SESSION_TOKEN") or get("AWS_SECURITY_TOKEN") or None)


def _from_profile(get: Callable[[str], str | None], name: str) -> Credentials:
    access, secret = get("aws_access_key_id"), get("aws_secret_access_key")
    if not access or not secret:
        raise DeniedError(f"AWS profile {name!r} has no aws_secret_access_key")
    return Credentials(access, secret, get("aws_session_token") or get("aws_security_token") or None)


def _from_host(config: SourceConfig) -> Credentials:
    from cloudimport.sources.metadata import from_container, from_instance

    if any(config.environ.get(f"AWS_CONTAINER_CREDENTIALS_{way}_URI") for way in ("RELATIVE", "FULL")):
        return from_container(config)
    if config.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise DeniedError(
            "there are no AWS credentials: none in the environment, no profile, no container endpoint, and "
            "the instance metadata service is disabled (AWS_EC2_METADATA_DISABLED); for a public bucket ask "
            "unsigned"
        )
    return from_instance(config)


def _from_botocore(config: SourceConfig, profiles: Profiles) -> Credentials:
    from cloudimport.sources.botocore_credentials import from_botocore

    return from_botocore(config, config.profile and profiles.name)
