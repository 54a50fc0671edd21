"""What a build on a shelf was made of, compared with what a list asks for (docs/format.md, section 8)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format import keys
from cloudimport.format.layout import BuildPointer
from cloudimport.format.requirements import Requirement
from cloudimport.ids import Target
from cloudimport.sources.base import Source
from cloudimport.sources.record import read_record

#: Hashes of a list that an error has in full.
_NAMED = 3


def check_wheel(source: Source, requirement: Requirement, target: Target) -> None:
    """Check that a published build was made of a wheel that has one of the requirement's hashes.

    Nothing is read if it has none. Raises ConfigurationError that names both, a FetchError or FormatError.
    """
    if not requirement.hashes:
        return
    wheel = _read_wheel(source, requirement, target)
    found = [f"{name}:{wheel[name]}" for name in ("sha256", "sha384", "sha512") if name in wheel]
    if set(found) & set(requirement.hashes):
        return
    wanted = " or ".join(requirement.hashes[:_NAMED])
    if len(requirement.hashes) > _NAMED:
        wanted += f" or one of {len(requirement.hashes) - _NAMED} more"
    was = (
        f"{wheel.get('name', 'a wheel')} with {found[0]}" if found else "a wheel of which there is no record"
    )
    raise ConfigurationError(
        f"{requirement.where}: {requirement.pin} for {target} is on the shelf and was made of {was}; "
        f"the list asks for {wanted}: take that wheel's hash into the list, or remove the build"
    )


def _read_wheel(source: Source, requirement: Requirement, target: Target) -> Mapping[str, str]:
    """Return what the provenance says of the wheel, strings only."""
    pin = requirement.pin
    key = keys.build_pointer(pin.name, pin.version, str(target))
    pointer = BuildPointer.decode(source.read(key), f"{source.url}/{key}")
    whence = keys.build_prefix(pin.name, pin.version, str(target)) + f"provenance-{pointer.provenance.digest}"
    try:
        record = json.loads(read_record(source, whence, pointer.provenance))
        return {name: value for name, value in record.get("wheel", {}).items() if isinstance(value, str)}
    except (ValueError, AttributeError, RecursionError) as error:
        raise FormatError(f"{source.url}/{whence} is not a provenance record: {error}") from None
