"""The verifier of our own: RFC 8032's vectors, another library's signatures, and what must never pass."""

from __future__ import annotations

import hashlib
from binascii import unhexlify

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from cloudimport.format.ed25519 import is_key, is_valid

#: RFC 8032, section 7.1: public key, message, signature.
VECTORS = {
    "1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    "2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    "3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
    "SHA(abc)": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
            "3dca179c138ac17ad9bef1177331a704"
        ),
    ),
}
_L = 2**252 + 27742317777372353535851937790883648493
_P = 2**255 - 19
#: Every point of small order in its one encoding: y for order 1, 2, 4 and 8 (RFC 7748's curve, in y).
_ORDER_8 = (
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
)


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str) -> None:
    """The RFC's signatures are valid, and not for another message."""
    key, message, signature = map(unhexlify, VECTORS[name])
    assert is_valid(key, signature, message)
    assert not is_valid(key, signature, message + b"\0")


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_signatures_of_another_library(seed: bytes, message: bytes) -> None:
    """What `cryptography` signs is valid."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    assert is_valid(private.public_key().public_bytes_raw(), private.sign(message), message)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 32 * 8 + 64 * 8 + 5 * 8 - 1))
def test_every_bit_counts(seed: bytes, bit: int) -> None:
    """With one bit of key, signature or message flipped it is invalid, for us and for `cryptography`."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    whole = bytearray(private.public_key().public_bytes_raw() + private.sign(b"hello") + b"hello")
    whole[bit // 8] ^= 1 << bit % 8
    key, signature, message = bytes(whole[:32]), bytes(whole[32:96]), bytes(whole[96:])
    assert not is_valid(key, signature, message)
    with pytest.raises((InvalidSignature, ValueError)):
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64), st.binary(max_size=20))
def test_anything_else_is_invalid(key: bytes, signature: bytes, message: bytes) -> None:
    """Random keys and signatures neither pass nor raise."""
    assert not is_valid(key, signature, message)


@pytest.mark.parametrize("times", [1, 2, 7, 15])
def test_a_signature_has_one_form(times: int) -> None:
    """S with the group order added, which fits the equation as well, is refused (malleability)."""
    private = Ed25519PrivateKey.generate()
    key, signature = private.public_key().public_bytes_raw(), private.sign(b"m")
    other = int.from_bytes(signature[32:], "little") + times * _L
    if other < 2**256:
        assert not is_valid(key, signature[:32] + other.to_bytes(32, "little"), b"m")
    assert is_valid(key, signature, b"m")


def _small_keys() -> list[bytes]:
    ordered = [1, _P - 1, 0]
    keys = [y.to_bytes(32, "little") for y in ordered]
    for text in _ORDER_8:
        keys += [bytes.fromhex(text), _with_sign(bytes.fromhex(text))]
    keys.append(_with_sign((0).to_bytes(32, "little")))
    return keys


def _with_sign(key: bytes) -> bytes:
    return key[:31] + bytes([key[31] | 0x80])


@pytest.mark.parametrize("key", _small_keys(), ids=bytes.hex)
def test_keys_of_small_order(key: bytes) -> None:
    """Keys of small order are refused: with them, one signature fits every eighth message and more."""
    assert not is_key(key)
    # R = B, S = 1 fits wherever [k]A is the neutral element: for order 1 always, for the others often.
    base = (4 * pow(5, -1, _P) % _P).to_bytes(32, "little")
    forged = base + (1).to_bytes(32, "little")
    assert not any(is_valid(key, forged, bytes([n])) for n in range(16))


@pytest.mark.parametrize(
    "number",
    [_P, _P + 1, _P + 3, 2**255 - 1, 1 | 1 << 255, (_P - 1) | 1 << 255],
    ids=["p", "p+1", "p+3", "2^255-1", "-0 of 1", "-0 of -1"],
)
def test_keys_in_another_encoding(number: int) -> None:
    """A y that is not reduced, and a negative zero, are no keys."""
    assert not is_key(number.to_bytes(32, "little"))


def test_an_unreduced_form_of_a_good_point_is_refused() -> None:
    """The point with y = 3 is a good key, and y = p + 3 is the same point in a second encoding."""
    assert is_key((3).to_bytes(32, "little"))
    assert not is_key((_P + 3).to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_wrong_lengths(size: int) -> None:
    """Keys and signatures of another length are invalid."""
    assert not is_key(bytes(size))
    assert not is_valid(bytes.fromhex(VECTORS["1"][0]), bytes(size), b"")
    assert not is_valid(bytes(size), bytes.fromhex(VECTORS["1"][2]), b"")
