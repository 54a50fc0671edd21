"""``NamedTuple`` without ``typing``, whose import costs more than all of this package's own code.

For the type checker it is ``typing.NamedTuple``; here it is what the runtime needs of that. Modules
that begin to run in every process import no more than this does (docs/decisions/0015).
"""

from __future__ import annotations

from _collections import _tuplegetter  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NamedTuple(tuple):  # type: ignore[type-arg]
    """A base of classes whose annotations name the items, with defaults as ``typing.NamedTuple`` has them."""

    __slots__ = ()
    _fields: tuple[str, ...] = ()
    _defaults: tuple[Any, ...] = ()

    def __init_subclass__(cls) -> None:
        if cls._fields:
            raise TypeError(f"{cls.__name__}: a named tuple cannot be given more fields")
        own = vars(cls)
        cls._fields = tuple(cls.__annotations__)
        cls._defaults = tuple(own[name] for name in cls._fields if name in own)
        for at, name in enumerate(cls._fields):
            setattr(cls, name, _tuplegetter(at, name))

    def __new__(cls, *values: Any, **named: Any) -> NamedTuple:
        """Return a tuple of all fields. Raises TypeError."""
        fields = cls._fields
        if named or len(values) != len(fields):
            values = cls._complete(values, named)
        return tuple.__new__(cls, values)

    @classmethod
    def _complete(cls, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        fields, defaults = cls._fields, cls._defaults
        found = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))
        found.update(zip(fields, values, strict=False))
        twice = [name for name in named if name in fields[: len(values)]]
        found.update(named)
        if twice or len(values) > len(fields) or found.keys() != set(fields):
            raise TypeError(f"{cls.__name__} has the fields {', '.join(fields)}")
        return tuple(found[name] for name in fields)

    @classmethod
    def _make(cls, values: Any) -> NamedTuple:
        return cls(*values)

    def _replace(self, **named: Any) -> NamedTuple:
        return type(self)(**{**self._asdict(), **named})

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        items = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({items})"
