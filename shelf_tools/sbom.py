"""``shelf sbom``: a bill of materials of a lockfile's environment, in CycloneDX JSON, by its own library.

CycloneDX 1.6 (ECMA-424); package URLs by the purl specification's type ``pypi``. What stands in METADATA is
somebody else's text: it is bounded, and claims nothing that it is not named for.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timezone
from typing import Any, NamedTuple

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.metadata import RawMetadata, parse_email

import cloudimport
from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format import keys
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.layout import BuildPointer
from cloudimport.format.lock import Lock
from cloudimport.format.requirements import parse_lines
from cloudimport.ids import Pin, Target, normalise_version, running_targets
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from cloudimport.sources.record import read_record
from shelf_tools import pins
from shelf_tools.builds import Blocks, read_build
from shelf_tools.check import check
from shelf_tools.indexing import Built

#: Builds read at a time: what bounds it is waiting.
_READERS = 8
#: Characters of a text of METADATA, and of a licence's name: what is longer is a licence's text.
_MOST_TEXT, _MOST_NAME = 500, 100
_SCHEMA = SchemaVersion.V1_6
_DECLARED = LicenseAcknowledgement.DECLARED
_LICENCES = "License :: "


class Part(NamedTuple):
    """One build as a bill of materials has it. ``metadata`` is what METADATA says, unchecked."""

    pin: Pin
    built: Built
    metadata: RawMetadata
    provenance: Mapping[str, Any]


def pick_target(lock: Lock, wanted: str) -> str:
    """Return the target of a lock that is wanted; "": its only one, or the running interpreter's.

    Raises ConfigurationError.
    """
    offered = sorted(lock.targets)
    if wanted:
        target = str(Target.parse(wanted))
        if target in offered:
            return target
        raise ConfigurationError(f"the lock is not for {target} but for {', '.join(offered)}")
    usable = offered if len(offered) == 1 else [str(t) for t in running_targets() if str(t) in offered]
    if not usable:
        raise ConfigurationError(f"say with --target which one is meant: {', '.join(offered)}")
    return usable[0]


class Loaded(NamedTuple):
    """What a process has loaded, by its own record: content digests by ``name==version``."""

    environment: str
    target: str
    pins: Mapping[str, str]


def read_loaded(text: str, where: str) -> Loaded:
    """Return what was loaded: from the file of ``CLOUDIMPORT_LOADED``, or a log that has cold-start lines.

    Of several the last one counts. Raises FormatError.
    """
    found = [record for line in text.splitlines() if (record := _record(line)) is not None]
    if not found:
        raise FormatError(f"{where} has no record of what was loaded: see docs/observing.md")
    pins = {str(pin): str(digest) for pin, digest in found[-1]["loaded"].items()}
    return Loaded(str(found[-1].get("environment")), str(found[-1].get("target")), pins)


def _record(line: str) -> dict[str, Any] | None:
    """Return a line's JSON if it tells what was loaded; a log's lines may have a time and more before it."""
    try:
        record = json.loads(line[line.index("{") :])
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("loaded"), dict) else None


def write_sbom(
    lock: Lock, target: str, shelf: str, environ: Mapping[str, str], loaded: Loaded | None = None
) -> str:
    """Return the bill of materials of a lock's environment for a target, or of what of it was ``loaded``.

    CycloneDX JSON; the same lock gives the same bytes. Raises a FetchError, FormatError or
    ConfigurationError.
    """
    ref = lock.targets[target]
    if loaded is not None and (loaded.environment, loaded.target) != (ref.digest, target):
        raise ConfigurationError(
            f"what was loaded is of environment {loaded.environment[:12]} for {loaded.target}, the lock's "
            f"for {target} is {ref.digest[:12]}: use the lockfile that the process had"
        )
    with closing(open_source(shelf, SourceConfig(environ=environ))) as source:
        data = read_record(source, keys.environment_index(ref.digest), ref)
        builds = EnvironmentIndex(data, ref).builds
        with ThreadPoolExecutor(_READERS) as pool:
            parts = list(pool.map(lambda one: _read(source, one.pin, one.content, target), builds))
    listed = pins.for_target(parse_lines(lock.requirements), Target.parse(target))
    contents = {part.pin: part.built.content for part in parts}
    needs: Mapping[Pin, Collection[Pin]] = check(contents, listed, Target.parse(target)).needs
    if loaded is not None:
        parts = _among(parts, loaded.pins)
        needs = {part.pin: _of(needs.get(part.pin, ()), loaded.pins) for part in parts}
    bom = _bom(parts, needs, ref.digest, target, "" if loaded is None else "".join(sorted(loaded.pins)))
    return make_outputter(bom, OutputFormat.JSON, _SCHEMA).output_as_string(indent=2) + "\n"


def _of(needed: Collection[Pin], pins: Mapping[str, str]) -> list[Pin]:
    """Return those that are among pins (``name==version``)."""
    return [pin for pin in needed if str(pin) in pins]


def _among(parts: Sequence[Part], loaded: Mapping[str, str]) -> list[Part]:
    """Return the parts that were loaded. Raises FormatError for what is none of them, byte for byte."""
    contents = {str(part.pin): part.built.content_digest for part in parts}
    strangers = [pin for pin, digest in loaded.items() if contents.get(pin) != digest]
    if strangers:
        raise FormatError(f"loaded were {', '.join(strangers)}, with other contents than the shelf has")
    return [part for part in parts if str(part.pin) in loaded]


def _read(source: Source, pin: Pin, content: str, target: str) -> Part:
    """Return a build with its METADATA and provenance. Raises a FetchError or FormatError."""
    built = read_build(source, pin, target)
    if built is None or built.content_digest != content:
        found = f"has content {built.content_digest}" if built else "is gone"
        raise FormatError(f"{source.url}: {pin} for {target} {found}, the lock's index is for {content}")
    key = keys.build_pointer(pin.name, pin.version, target)
    pointer = BuildPointer.decode(source.read(key), f"{source.url}/{key}")
    prefix = keys.build_prefix(pin.name, pin.version, target)
    whence = f"{prefix}provenance-{pointer.provenance.digest}"
    provenance = json.loads(read_record(source, whence, pointer.provenance))
    return Part(pin, built, _metadata(source, built), provenance if isinstance(provenance, dict) else {})


def _metadata(source: Source, built: Built) -> RawMetadata:
    for file, extents in zip(built.content.files, built.layout.files, strict=True):
        folder, _, name = file.path.partition("/")
        if folder.endswith(".dist-info") and name == "METADATA":
            return parse_email(Blocks(source, built).plain(extents))[0]
    return {}


def _bom(
    parts: Sequence[Part], needs: Mapping[Pin, Collection[Pin]], index: str, target: str, named: str
) -> Bom:
    """Return the bill; ``named`` tells one of a part of the environment from others."""
    components = {part.pin: _component(part) for part in parts}
    whole = Component(
        name="environment",
        type=ComponentType.APPLICATION,
        version=index[:12],
        bom_ref="environment",
        properties=[Property(name="cloudimport:index", value=index), _property("target", target)],
    )
    tool = Component(name="cloudimport", type=ComponentType.APPLICATION, version=cloudimport.__version__)
    metadata = BomMetaData(
        component=whole, tools=ToolRepository(components=[tool]), timestamp=_published(parts)
    )
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"cloudimport:{index}{named}")
    bom = Bom(components=components.values(), metadata=metadata, serial_number=serial)
    bom.register_dependency(whole, [components[pin] for pin in _roots(list(components), needs)])
    for pin, component in components.items():
        bom.register_dependency(component, [components[other] for other in needs.get(pin, ())])
    return bom


def _published(parts: Iterable[Part]) -> datetime:
    """Return when the last of the builds was published: a date that does not depend on who asks, and when."""
    dates = [part.provenance.get("published") for part in parts]
    last = max((date for date in dates if type(date) is int and 0 <= date < 1 << 35), default=0)
    return datetime.fromtimestamp(last, timezone.utc)


def _roots(found: Sequence[Pin], needs: Mapping[Pin, Collection[Pin]]) -> list[Pin]:
    """Return pins from which all are reached: those that none needs, and the first of each circle."""
    needed = {other for pin, others in needs.items() for other in others if other != pin}
    roots: list[Pin] = []
    seen: set[Pin] = set()
    for pin in [*(pin for pin in found if pin not in needed), *found]:
        if pin not in seen:
            roots.append(pin)
            queue = [pin]
            for one in queue:
                if one not in seen:
                    seen.add(one)
                    queue += needs.get(one, ())
    return roots


def _component(part: Part) -> Component:
    version = _version(part)
    purl = PackageURL("pypi", name=part.pin.name, version=version)
    wheel = part.provenance.get("wheel")
    wheel = wheel if isinstance(wheel, dict) else {}
    properties = [_property("content", part.built.content_digest)]
    if wheel.get("name"):
        properties.append(_property("wheel", str(wheel["name"])))
    digest = wheel.get("sha256")
    return Component(
        name=part.pin.name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        description=_line(part.metadata.get("summary")) or None,
        licenses=_licences(part.metadata),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=str(digest))] if digest else [],
        properties=properties,
    )


def _property(name: str, value: str) -> Property:
    return Property(name=f"cloudimport:{name}", value=value)


def _version(part: Part) -> str:
    """Return the version as the package writes it, where that is the pin's."""
    said = _line(part.metadata.get("version"))
    try:
        return said if normalise_version(said) == part.pin.version else part.pin.version
    except ConfigurationError:
        return part.pin.version


def _line(text: str | None) -> str:
    """Return a text of METADATA as one line of bounded length."""
    return "".join(c for c in " ".join((text or "").split()) if c.isprintable())[:_MOST_TEXT]


def _licences(metadata: RawMetadata) -> list[License]:
    """Return the licences that METADATA declares: the expression, else the classifiers, else the name."""
    factory = LicenseFactory()
    expression = _line(metadata.get("license_expression"))
    if expression:
        return [factory.make_from_string(expression, license_acknowledgement=_DECLARED)]
    names = [
        _line(classifier).rpartition(" :: ")[2]
        for classifier in metadata.get("classifiers", ())
        if classifier.startswith(_LICENCES) and classifier != "License :: OSI Approved"
    ]
    if names:
        return [factory.make_with_name(name, acknowledgement=_DECLARED) for name in dict.fromkeys(names)]
    name = (metadata.get("license") or "").strip()
    if name and "\n" not in name and len(name) <= _MOST_NAME:
        return [factory.make_from_string(_line(name), license_acknowledgement=_DECLARED)]
    return []
