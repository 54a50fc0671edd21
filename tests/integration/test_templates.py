"""Templates for CloudFormation and SAM: they are valid, and who gets a role of theirs may do no more."""

from __future__ import annotations

import fnmatch
import io
import json
import os
import re
import tempfile
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudimport.format import keys
from lambda_layer.__main__ import main
from lambda_layer.templating import KINDS
from shelf_tools.environments import read_lock
from tests.integration.test_policy import Shop
from tests.support.installed import REQUESTS, publish_installed
from tests.support.s3servers import S3Server, User
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf
from tests.support.templates import deploy, lambda_layer, read_template, tool
from tests.support.wiretap import wiretap

ARM = "cp312-manylinux_2_34_aarch64"


def made(kind: str, *arguments: str | Path) -> str:
    """Return a template's text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "template.yaml")
        assert main(["template", kind, "-o", str(path), *map(str, arguments)]) == 0
        return path.read_text()


@pytest.fixture
def shop(moto: S3Server, tmp_path: Path) -> Shop:
    """A shelf on S3 with requests and a package of others; the lockfile is for Lambda, too."""
    bucket = moto.make_bucket(f"shelf-{os.urandom(6).hex()}")
    (tmp_path / "work").mkdir()
    shelf = MadeShelf(tmp_path / "work", f"s3://{bucket}/some/prefix", moto.environ)
    with closing(shelf.source):
        publish_installed(shelf, *REQUESTS)
        shelf.add("secret", "1.0", {"secret.py": "x = 1\n"})
        shelf.environment("secret==1")
        shelf.environment(*(str(pin) for pin in shelf.builds if pin.name != "secret"))
    lock = read_lock(shelf.lock)
    (ref,) = lock.targets.values()
    shelf.lock.write_text(lock._replace(targets={**lock.targets, ARM: ref}).encode())
    return Shop(moto, bucket, shelf.url, shelf.lock, tmp_path, "identity")


def function_stack(shop: Shop, kind: str) -> dict[str, str]:
    """Deploy the stack of a function for the shop's lockfile."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", "def handler(event, context): pass\n")
    with closing(shop.server.client()) as client:
        for key in ("function.zip", "layer.zip"):
            client.put_object(Bucket=shop.bucket, Key=key, Body=packed.getvalue())
    text = made(kind, "--lock", shop.lock, "--python", "3.12", "--arch", "arm64")
    where = {"CodeBucket": shop.bucket, "CodeKey": "function.zip", "LayerKey": "layer.zip"}
    return deploy(shop.server, transformed(text, shop.bucket), **({} if kind == "sam" else where))


def transformed(text: str, bucket: str) -> str:
    """Return what AWS makes of a SAM template, by the code that AWS does it with; another one as it is."""
    template = read_template(text)
    if "Transform" not in template:
        return text
    from samtranslator.translator.transform import transform

    template["Resources"]["Function"]["Properties"]["CodeUri"] = f"s3://{bucket}/function.zip"
    template["Resources"]["Layer"]["Properties"]["ContentUri"] = f"s3://{bucket}/layer.zip"
    return json.dumps(transform(template, {}, None))


@pytest.mark.parametrize("kind", ["cloudformation", "sam"])
def test_a_function_reads_what_its_lock_needs(shop: Shop, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the function's role all of its packages can be imported, and nothing else of the shelf can be
    read, listed or written; beside that it may write its log.
    """
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    stack = function_stack(shop, kind)
    assert log_group(shop.server, stack["Role"]).startswith(
        f"arn:aws:logs:us-east-1:123456789012:log-group:{stack['Logs']}"
    )
    role = f"arn:aws:iam::123456789012:role/{stack['Role']}"
    user = User(as_lambda_does(shop.server, role), "function", role)
    code = "import requests, idna\nprint(all(m.__file__.startswith(env.root) for m in (requests, idna)))"
    strict = {"CLOUDIMPORT_YANKED": "refuse", "CLOUDIMPORT_STATUS_UNKNOWN": "refuse"}
    assert shop.run(user, code, **strict, CLOUDIMPORT_SHELF=stack["Shelf"]).ok() == "True"
    there = shop.everything()
    lock = read_lock(shop.lock)
    wanted = {f"envs/{ref.digest}" for ref in lock.targets.values()} | {keys.STATUS}
    wanted |= {key for key in there if key.startswith(tuple(f"packages/{name}/" for name in REQUESTS))}
    assert {key for key in there if shop.may(user, "get_object", key)} == wanted
    assert any(key.startswith("packages/secret/") for key in there - wanted)
    assert not shop.may(user, "list_objects_v2", "")
    assert not shop.may(user, "put_object", "packages/idna/x", Body=b"x")
    assert not shop.may(user, "delete_object", keys.STATUS)


def log_group(server: S3Server, role: str) -> str:
    """Return what the only other policy of a function's role is for: its log group."""
    with closing(server.client("iam")) as iam:
        assert iam.list_role_policies(RoleName=role)["PolicyNames"] == ["WriteLogs"]
        document = read(iam.get_role_policy(RoleName=role, PolicyName="WriteLogs")["PolicyDocument"])
        # moto keeps the policy of a stack as Python prints it, and then fails to read it.
        iam.put_role_policy(RoleName=role, PolicyName="WriteLogs", PolicyDocument=json.dumps(document))
    (statement,) = document["Statement"]
    return str(statement["Resource"])


def read(document: object) -> dict[str, Any]:
    """Return a policy as moto gives it: read, or as text, or as Python would print it."""
    found: dict[str, Any] = document if isinstance(document, dict) else yaml.safe_load(str(document))
    return found


def as_lambda_does(server: S3Server, role: str) -> S3Server:
    """Take a role that only Lambda may take: this one is lent to the caller first."""
    with closing(server.client("sts")) as sts, closing(server.client("iam")) as iam:
        document = iam.get_role(RoleName=role.rpartition("/")[2])["Role"]["AssumeRolePolicyDocument"]
        trusted = read(document)
        assert trusted["Statement"][0]["Principal"] == {"Service": "lambda.amazonaws.com"}
        trusted["Statement"][0]["Principal"] = {"AWS": sts.get_caller_identity()["Arn"]}
        iam.update_assume_role_policy(RoleName=role.rpartition("/")[2], PolicyDocument=json.dumps(trusted))
    return server.take_role(role)


def test_a_function_is_as_the_template_says(shop: Shop) -> None:
    """The function has the layer, the wrapper, the shelf, and the machine of the lock."""
    resources = read_template(
        made("cloudformation", "--lock", shop.lock, "--python", "3.12", "--arch", "arm64")
    )
    found = resources["Resources"]["Function"]["Properties"]
    assert found["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"] == "/opt/cloudimport-exec"
    assert (found["Runtime"], found["Architectures"]) == ("python3.12", ["arm64"])
    stack = function_stack(shop, "cloudformation")
    assert stack["Shelf"] == f"s3://{shop.bucket}/some/prefix/"
    serverless = read_template(made("sam"))["Resources"]["Function"]["Properties"]
    for same in (
        "Handler",
        "MemorySize",
        "Timeout",
        "EphemeralStorage",
        "LoggingConfig",
        "Environment",
        "Layers",
    ):
        assert serverless[same] == found[same]


def test_a_publisher(shop: Shop) -> None:
    """With the publisher's role a lockfile is promoted and a version yanked; nothing is removed."""
    with closing(shop.server.client("sts")) as sts:
        own = sts.get_caller_identity()["Arn"]
    text = made("publisher", "--shelf", shop.url, "--no-bucket")
    stack = deploy(shop.server, text, PublisherPrincipal=own)
    user = User(shop.server.take_role(stack["PublisherRole"]), "publisher", stack["PublisherRole"])
    writes_to(shop, user)
    assert not shop.may(user, "delete_object", keys.STATUS)
    assert not shop.may(user, "put_object", "../elsewhere", Body=b"x")


def writes_to(shop: Shop, user: User) -> None:
    """Promote another shelf's environment to the shop's, and yank a version there."""
    (shop.folder / "other").mkdir()
    other = MadeShelf(shop.folder / "other")
    other.add("a", "1", {"a.py": "X = 1\n"})
    other.environment()
    env = user.server.environ
    assert "1 build on" in run_shelf("promote", other.url, shop.url, env=env, cwd=other.work).ok()
    run_shelf("yank", "a==1", "--reason", "wrong", "--shelf", shop.url, env=env).ok()
    assert any(key.startswith("packages/a/") for key in shop.everything())


def test_writers_on_a_strict_server(shop: Shop, radosgw: S3Server) -> None:
    """The policies are enough where only those who may list hear that an object is missing."""
    template = read_template(made("publisher", "--shelf", shop.url, "--no-bucket"))
    radosgw.make_bucket(shop.bucket)
    there = replace(shop, server=radosgw)
    publisher, keeper = (with_policy(there, template, name) for name in ("PublishPolicy", "KeepPolicy"))
    writes_to(there, publisher)
    env, requirements = keeper.server.environ, shop.folder / "other" / "requirements.txt"
    run_shelf("forget", requirements, "--shelf", shop.url, env=env).ok()
    run_shelf("gc", "--delete", "--older-than", "0", "--shelf", shop.url, env=env).ok()
    assert not any(key.startswith("packages/") for key in there.everything())
    assert not there.may(publisher, "delete_object", keys.STATUS)
    assert not there.may(keeper, "put_object", keys.STATUS, Body=b"x")


def with_policy(shop: Shop, template: dict[str, Any], name: str) -> User:
    """Return a user with a policy of a template."""
    document = resolved(
        template["Resources"][name]["Properties"]["PolicyDocument"], shop.bucket, "some/prefix/"
    )
    user = shop.stranger()
    with closing(shop.server.client("iam")) as iam:
        iam.put_user_policy(UserName=user.name, PolicyName="p", PolicyDocument=json.dumps(document))
    return user


def resolved(value: Any, bucket: str, prefix: str) -> Any:
    """Return a document with its ``Fn::Sub`` carried out."""
    if isinstance(value, dict) and list(value) == ["Fn::Sub"]:
        names = {"AWS::Partition": "aws", "ShelfBucket": bucket, "ShelfPrefix": prefix}
        return re.sub(r"\$\{([^}]+)\}", lambda match: names[match[1]], value["Fn::Sub"])
    if isinstance(value, dict):
        return {key: resolved(one, bucket, prefix) for key, one in value.items()}
    return [resolved(one, bucket, prefix) for one in value] if isinstance(value, list) else value


def bucket_policy(bucket: str) -> dict[str, Any]:
    """Return the statements of the bucket's policy, by name."""
    resources = read_template(made("publisher", "--shelf", f"s3://{bucket}/some/prefix"))["Resources"]
    document = resolved(
        resources["ShelfBucketPolicy"]["Properties"]["PolicyDocument"], bucket, "some/prefix/"
    )
    return {one["Sid"]: one for one in document["Statement"]}


def test_the_bucket_s_condition_lets_every_writer_write(shop: Shop) -> None:
    """Whoever writes a pointer says what it replaces: promoting, yanking, forgetting and collecting, too."""
    statement = bucket_policy(shop.bucket)["DenyPointersWithoutCondition"]
    patterns = [arn.partition(":::")[2] for arn in statement["Resource"]]
    conditions = {name.partition(":")[2].encode() for name in statement["Condition"]["Null"]}
    with closing(shop.server.client()) as client:  # a new shelf is made by the first who writes
        for key in (keys.SHELF, keys.STATUS):
            client.delete_object(Bucket=shop.bucket, Key=f"some/prefix/{key}")
    with wiretap(shop.server.endpoint) as tap:
        there = replace(shop.server, endpoint=tap.address.replace("tcp:", "http:"))
        writes_to(shop, User(there, "", ""))
        for command in (
            ("unyank", "a==1"),
            ("forget", shop.folder / "other" / "requirements.txt"),
            ("gc", "--delete", "--older-than", "0"),
        ):
            run_shelf(*command, "--shelf", shop.url, env=there.environ, cwd=shop.folder).ok()
        sent = bytes(tap.sent)
    seen = set()
    for head in re.findall(rb"PUT /(\S+) HTTP/1.1\r\n(.*?)\r\n\r\n", sent, re.DOTALL):
        key, headers = head[0].decode(), head[1].lower()
        matched = [pattern for pattern in patterns if fnmatch.fnmatchcase(key, pattern)]
        seen.update(matched)
        assert not matched or any(b"\r\n" + name + b":" in b"\r\n" + headers for name in conditions), key
    assert seen == set(patterns)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each template as it is made without and with a shelf, and with a long lock."""
    folder = tmp_path_factory.mktemp("templates")
    (folder / "function").mkdir()
    (folder / "function" / "app.py").write_text("def handler(event, context): pass\n")
    with zipfile.ZipFile(folder / "layer.zip", "w") as archive:
        archive.writestr("python/x.py", "")
    lock = MadeLock(folder).write(300)
    for kind in KINDS:
        (folder / f"{kind}.yaml").write_text(made(kind))
        (folder / f"{kind}-shelf.yaml").write_text(made(kind, "--shelf", "s3://my-shelf/some/prefix"))
    for kind in ("sam", "cloudformation"):
        (folder / f"{kind}-lock.yaml").write_text(made(kind, "--lock", lock))
    (folder / "publisher-no-bucket.yaml").write_text(
        made("publisher", "--shelf", "s3://my-shelf", "--no-bucket")
    )
    return folder


class MadeLock:
    """Lockfiles with as many packages as one likes, of no shelf that there is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, packages: int) -> Path:
        """Write a lockfile; return its path."""
        from cloudimport.format.lock import Lock
        from cloudimport.format.records import Ref

        lines = tuple(f"package-with-a-long-name-{number:03}==1" for number in range(packages))
        lock = Lock("s3://my-shelf/some/prefix", lines, {ARM: Ref("ab" * 32, 1, 1)}, {})
        path = self.folder / f"{packages}.lock"
        path.write_text(lock.encode())
        return path


def test_cfn_lint(written: Path) -> None:
    """All of them pass cfn-lint, warnings included."""
    files = sorted(written.glob("*.yaml"))
    assert len(files) == 11
    assert tool("cfn-lint", "-t", *files).ok() == ""


@pytest.mark.parametrize(
    "name",
    [
        "sam-lock",
        pytest.param("sam", marks=pytest.mark.long),
        pytest.param("publisher", marks=pytest.mark.long),
        pytest.param("cloudformation-lock", marks=pytest.mark.long),
    ],
)
def test_sam_validate(written: Path, name: str) -> None:
    """``sam validate --lint`` takes them."""
    ran = tool("sam", "validate", "--lint", "--template", written / f"{name}.yaml", cwd=written)
    assert "is a valid SAM Template" in ran.ok()


@pytest.mark.long
def test_sam_build(written: Path) -> None:
    """``sam build`` takes the function's folder and the layer as they are, and fetches nothing."""
    closed = {"PIP_NO_INDEX": "1", "PIP_INDEX_URL": "http://127.0.0.1:9/", "UV_OFFLINE": "1"}
    tool("sam", "build", "--template", written / "sam-lock.yaml", env=closed, cwd=written).ok()
    assert os.listdir(written / ".aws-sam" / "build" / "Function") == ["app.py"]


def test_many_packages_are_several_policies(written: Path) -> None:
    """What is too large for one policy becomes several, each of a size that IAM takes, all the role's."""
    resources = read_template((written / "cloudformation-lock.yaml").read_text())["Resources"]
    readers = [one for name, one in resources.items() if name.startswith("ReadShelf")]
    assert len(readers) > 3
    for one in readers:
        assert one["Properties"]["Roles"] == [{"Ref": "Role"}]
        document = resolved(one["Properties"]["PolicyDocument"], "b" * 63, "some/prefix/")
        assert len(json.dumps(document, separators=(",", ":"))) <= 6144
    too_many = lambda_layer("template", "sam", "--lock", MadeLock(written).write(1500))
    assert too_many.returncode == 1
    assert too_many.stderr.startswith("lambda_layer: error: reading this takes ")
