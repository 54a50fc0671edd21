"""Checking Ed25519 signatures (RFC 8032, section 5.1), and nothing else: it never sees a secret.

Stricter than the RFC where that leaves a choice, so that a signature has one form and a key means one
signer: S below the group order, keys in their one encoding, no key of small order, and the equation without
the cofactor, compared by bytes. Pure; a check takes some milliseconds (docs/decisions/0021).
Import budget: ``hashlib``.
"""

from __future__ import annotations

from hashlib import sha512

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    #: A point in extended homogeneous coordinates: x = X/Z, y = Y/Z, x*y = T/Z.
    Point: TypeAlias = tuple[int, int, int, int]

#: Bytes of a public key and of a signature.
KEY_BYTES, SIGNATURE_BYTES = 32, 64

_P = 2**255 - 19
#: The order of the base point.
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_1 = pow(2, (_P - 1) // 4, _P)
_SIGN = 1 << 255
_NEUTRAL: Point = (0, 1, 1, 0)


def is_valid(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` (64 bytes) is that of ``message`` by the public key ``key`` (32 bytes)."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    point = _decode(key)
    scalar = int.from_bytes(signature[32:], "little")
    if point is None or scalar >= _L or _is_small(point):
        return False
    digest = sha512(signature[:32] + key + message).digest()
    challenge = int.from_bytes(digest, "little") % _L
    # R = [S]B - [k]A; encoded anew, it is equal to the signature's only if that is in its one encoding.
    return _encode(_combined(scalar, _BASE, challenge, _negated(point))) == signature[:32]


def is_key(key: bytes) -> bool:
    """Whether these bytes are a public key that a signature may be checked with."""
    point = _decode(key)
    return point is not None and not _is_small(point)


def _decode(data: bytes) -> Point | None:
    """Return the point that 32 bytes encode (RFC 8032, section 5.1.3), None if they are no encoding.

    A negative zero is left to who asks whether the point is of small order.
    """
    if len(data) != KEY_BYTES:
        return None
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (_SIGN - 1)
    if y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if v * x * x % _P != u:
        x = x * _ROOT_OF_MINUS_1 % _P
        if v * x * x % _P != u:
            return None
    if x & 1 != sign:  # for x = 0, of which there is no negative, both points are of small order
        x = _P - x
    return x, y, 1, x * y % _P


def _encode(point: Point) -> bytes:
    """Return a point's 32 bytes."""
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(KEY_BYTES, "little")


def _added(one: Point, other: Point) -> Point:
    """Return the sum of two points (RFC 8032, section 5.1.4)."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _doubled(point: Point) -> Point:
    """Return a point's double (RFC 8032, section 5.1.4)."""
    x, y, z, _ = point
    a, b = x * x % _P, y * y % _P
    h = a + b
    e = h - (x + y) ** 2 % _P
    g = a - b
    f = 2 * z * z % _P + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _negated(point: Point) -> Point:
    return _P - point[0], point[1], point[2], _P - point[3]


def _is_small(point: Point) -> bool:
    """Whether a point's order divides the cofactor, 8: for such a key anything can be made to fit."""
    eightfold = _doubled(_doubled(_doubled(point)))
    return eightfold[0] % _P == 0 and (eightfold[1] - eightfold[2]) % _P == 0


def _combined(s: int, one: Point, k: int, other: Point) -> Point:
    """Return [s]one + [k]other, one pass over the bits of both."""
    table = (_NEUTRAL, one, other, _added(one, other))
    found = _NEUTRAL
    for bit in range(max(s.bit_length(), k.bit_length()) - 1, -1, -1):
        found = _doubled(found)
        which = (s >> bit & 1) | (k >> bit & 1) << 1
        if which:
            found = _added(found, table[which])
    return found


def _base() -> Point:
    point = _decode((4 * pow(5, -1, _P) % _P).to_bytes(KEY_BYTES, "little"))
    assert point is not None
    return point


_BASE = _base()
