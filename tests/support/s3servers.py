"""Real S3 servers for tests: moto with signatures enforced, and radosgw. Ports are free ones.

Both are context managers that yield an ``S3Server``; leaving them ends every process that they
started.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

#: Seconds within which a server must be up; they take 1 to 5 on two busy cores.
_START = 60.0

RADOSGW_PROGRAMS = ("monmaptool", "ceph-mon", "ceph", "ceph-osd", "radosgw-admin", "radosgw", "unshare")
RADOSGW_INSTALL = "apt-get install -y --no-install-recommends radosgw ceph-mon ceph-osd ceph-common"


class ServerError(Exception):
    """A server did not start; the text has the end of its log."""


@dataclass(frozen=True)
class S3Server:
    """A running server and the keys of a user that may do everything."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    #: Of the keys of a role.
    token: str = ""
    #: What vouches for its certificate, if it speaks TLS.
    root: Path | None = None
    #: Where it writes a line for each request, if it does.
    log: Path | None = None
    #: How its users are made by hand, where its IAM does not make them.
    admin: tuple[str, ...] = ()

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a program that uses this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            **({"AWS_SESSION_TOKEN": self.token} if self.token else {}),
            **({"AWS_CA_BUNDLE": str(self.root)} if self.root else {}),
        }

    def client(self, service: str = "s3") -> Any:
        """Return a boto3 client of this server, whatever the environment says."""
        keys = self.access_key, self.secret_key
        return _client(service, self.endpoint, *keys, self.region, self.root, self.token)

    def make_bucket(self, bucket: str) -> str:
        """Create ``bucket`` and return its name."""
        self.client().create_bucket(Bucket=bucket)
        return bucket

    def take_role(self, arn: str) -> S3Server:
        """Return the server with the keys of a session of a role."""
        keys = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        return replace(
            self,
            access_key=keys["AccessKeyId"],
            secret_key=keys["SecretAccessKey"],
            token=keys["SessionToken"],
        )

    def make_user(self, name: str) -> User:
        """Make a user who may do nothing yet."""
        if self.admin:  # radosgw
            keys = f"KEY{name}", f"SECRET{name}"
            command = [*self.admin, "user", "create", f"--uid={name}", f"--display-name={name}"]
            command += [f"--access-key={keys[0]}", f"--secret-key={keys[1]}"]
            subprocess.run(command, check=True, capture_output=True, timeout=_START)
            return User(
                replace(self, access_key=keys[0], secret_key=keys[1]), name, f"arn:aws:iam:::user/{name}"
            )
        iam = self.client("iam")
        arn = iam.create_user(UserName=name)["User"]["Arn"]
        made = iam.create_access_key(UserName=name)["AccessKey"]
        own = replace(self, access_key=made["AccessKeyId"], secret_key=made["SecretAccessKey"])
        return User(own, name, arn)


@dataclass(frozen=True)
class User:
    """A user of a server: the server with the user's keys, the user's name and ARN."""

    server: S3Server
    name: str
    arn: str


def free_port() -> int:
    """Return a port of the loopback that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """Run moto with IAM and signatures enforced."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with tempfile.TemporaryFile() as log, _process(command, log) as process:
        _wait(lambda: _answers(f"{endpoint}/moto-api/data.json"), process, log, "moto")
        access, secret = _moto_user(endpoint)
        _post(f"{endpoint}/moto-api/reset-auth", b"0")
        yield S3Server("moto", endpoint, access, secret)


@dataclass(frozen=True)
class Place:
    """Where a server runs: a command that runs another one there, and the address it listens on.

    ``certificate`` is a PEM file with the server's certificate and key, for TLS, ``root`` what vouches for
    it.
    """

    command: tuple[str, ...] = ()
    address: str = "127.0.0.1"
    certificate: Path | None = None
    root: Path | None = None


@contextmanager
def radosgw_server(place: Place = Place()) -> Iterator[S3Server]:
    """Run a one-node Ceph in memory with its S3 gateway, in a PID namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="rgw-") as folder, tempfile.TemporaryFile() as log:
        port = free_port()
        endpoint = f"{'https' if place.certificate else 'http'}://{place.address}:{port}"
        _write_ceph_conf(Path(folder), free_port(), port, place)
        # The whole cluster dies with this process: TERM alone leaves the osd behind.
        command = [*place.command, "unshare", "-p", "--fork", "--kill-child", "--mount-proc"]
        command += [sys.executable, os.path.abspath(__file__), folder]
        with _process(command, log) as process:
            _wait(lambda: _answers(endpoint, place.root), process, log, "radosgw")
            yield S3Server(
                "radosgw",
                endpoint,
                "AKID",
                "SECRET",
                root=place.root,
                log=Path(folder, "client.rgw.log"),
                admin=("radosgw-admin", "-c", f"{folder}/ceph.conf"),
            )


def missing_programs() -> list[str]:
    """Return which of radosgw's programs are not installed."""
    return [program for program in RADOSGW_PROGRAMS if shutil.which(program) is None]


@contextmanager
def _process(command: list[str], log: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=_clean_environ(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Children first, so that ``unshare`` reaps the first process of its namespace, which takes
    # all others with it.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for pid in children.read_text().split() if children.exists() else ():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    try:
        process.wait(2 if "unshare" in str(process.args) else 0)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _clean_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}


def _wait(is_up: Callable[[], bool], process: subprocess.Popen[bytes], log: Any, name: str) -> None:
    until = time.monotonic() + _START
    while not is_up():
        if process.poll() is not None or time.monotonic() > until:
            log.seek(0)
            text = log.read()[-2000:].decode("utf-8", "replace")
            raise ServerError(f"{name} did not start:\n{text}")
        time.sleep(0.05)


def _answers(url: str, root: Path | None = None) -> bool:
    try:
        with _opener(root).open(url, timeout=5):
            return True
    except urllib.request.HTTPError:
        return True
    except OSError:
        return False


def _post(url: str, data: bytes) -> None:
    # As text: moto answers 500 to a form.
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "text/plain"})
    with _opener().open(request, timeout=10):
        pass


def _opener(root: Path | None = None) -> urllib.request.OpenerDirector:
    tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=root))
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)


def _moto_user(endpoint: str) -> tuple[str, str]:
    iam = _client("iam", endpoint, "setup", "setup", "us-east-1")
    iam.create_user(UserName="curator")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy(UserName="curator", PolicyName="all", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="curator")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def _client(
    service: str,
    endpoint: str,
    access: str,
    secret: str,
    region: str,
    root: Path | None = None,
    token: str = "",
) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        s3={"addressing_style": "path"},
        proxies={},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    make: Any = boto3.client
    return make(
        service,
        endpoint_url=endpoint,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        aws_session_token=token or None,
        region_name=region,
        verify=str(root) if root else None,
        config=config,
    )


#: What is not a default, and why: ``update on start`` and the crush entry by hand, since the
#: osd's start is a race otherwise; the paxos lines, since a start takes 10 s otherwise;
#: ``tcp_nodelay``, since a small GET takes 45 ms otherwise.
_CEPH_CONF = """\
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{mon_port}
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr2 = false
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd objectstore = memstore
memstore device bytes = 16G
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd class update on start = false
osd crush update on start = false
osd class default list = *
osd class load list = *
mon allow pool size one = true
mon data avail crit = 1
mon max pg per osd = 1000
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
paxos propose interval = 0.05
paxos min wait = 0.01
log file = {folder}/$name.log
admin socket = {folder}/$name.asok
pid file = {folder}/$name.pid
rgw frontends = beast {rgw_endpoint} tcp_nodelay=1
"""


def _uuid() -> str:
    return Path("/proc/sys/kernel/random/uuid").read_text().strip()


def _write_ceph_conf(folder: Path, mon_port: int, rgw_port: int, place: Place) -> None:
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir()
    endpoint = f"endpoint={place.address}:{rgw_port}"
    if place.certificate:
        endpoint = f"ssl_{endpoint} ssl_certificate={place.certificate} ssl_private_key={place.certificate}"
    text = _CEPH_CONF.format(fsid=_uuid(), folder=folder, mon_port=mon_port, rgw_endpoint=endpoint)
    (folder / "ceph.conf").write_text(text)


def _run_ceph(folder: Path) -> None:
    """Start mon, osd and gateway; the gateway takes this process's place. Runs as PID 1."""
    config = folder / "ceph.conf"
    os.environ["CEPH_CONF"] = str(config)
    lines = config.read_text().splitlines()
    values = dict(line.split(" = ", 1) for line in lines if " = " in line)
    osd, monmap = _uuid(), str(folder / "monmap")
    addresses = ["--fsid", values["fsid"], "--addv", "a", values["mon host"]]
    keys = ["--access-key=AKID", "--secret-key=SECRET"]
    for command in (
        ["monmaptool", "--create", "--clobber", *addresses, monmap],
        ["ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap],
        ["ceph-mon", "-i", "a"],
        ["ceph", "osd", "new", osd],
        ["ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd],
        ["ceph", "osd", "crush", "add", "osd.0", "1", "host=h", "root=default"],
        ["ceph-osd", "-i", "0"],
        ["radosgw-admin", "user", "create", "--uid=test", "--display-name=t", "--caps=user-policy=*", *keys],
    ):
        subprocess.run(command, check=True, timeout=_START)
    os.execvp("radosgw", ["radosgw", "-f", "-n", "client.rgw"])


if __name__ == "__main__":
    _run_ceph(Path(sys.argv[1]))
