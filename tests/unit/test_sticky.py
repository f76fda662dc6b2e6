"""The cookie that keeps a client with its backend cannot be made up, and outlives changes."""

from __future__ import annotations

import re

import pytest

from lbcore._sticky import Sticky

KEY = bytes(range(16))
NAMES = [b"10.0.0.1:8000", b"10.0.0.2:8000", b"big"]


@pytest.fixture
def pool() -> Sticky:
    return Sticky(NAMES, KEY)


def test_a_value_leads_back_to_the_backend_it_was_written_for(pool: Sticky) -> None:
    for index in range(3):
        value = pool.write(index)
        assert pool.find(value) == index
        assert re.fullmatch(b"[0-9a-f]{32}", value)


def test_a_value_means_the_backends_name_and_not_its_place(pool: Sticky) -> None:
    """So it holds over a reload that adds or moves backends, and over a restart."""
    later = Sticky([b"new", *reversed(NAMES)], KEY)
    assert [later.find(pool.write(index)) for index in range(3)] == [3, 2, 1]


def test_a_backend_that_is_gone_is_not_found(pool: Sticky) -> None:
    assert Sticky(NAMES[:2], KEY).find(pool.write(2)) == -1


def test_every_changed_digit_breaks_the_signature(pool: Sticky) -> None:
    value = pool.write(0)
    for at in range(32):
        for digit in b"0123456789abcdef":
            forged = value[:at] + bytes([digit]) + value[at + 1:]
            assert pool.find(forged) == (0 if forged == value else -1)


def test_halves_of_two_values_make_no_third(pool: Sticky) -> None:
    a, b = pool.write(0), pool.write(1)
    assert pool.find(a[:16] + b[16:]) == pool.find(b[:16] + a[16:]) == -1


def test_another_pools_key_makes_other_values(pool: Sticky) -> None:
    other = Sticky(NAMES, bytes(16))
    assert pool.write(0) != other.write(0)
    assert other.find(pool.write(0)) == -1


@pytest.mark.parametrize("value", [
    b"", b"0" * 31, b"0" * 32, b"0" * 33, b"g" * 32, b"\0" * 32, b"\xff" * 32, b" " * 32,
])
def test_what_is_no_value_names_nobody(pool: Sticky, value: bytes) -> None:
    assert pool.find(value) == -1


def test_a_value_has_one_spelling(pool: Sticky) -> None:
    value = pool.write(0)
    assert value.upper() != value
    assert pool.find(value.upper()) == pool.find(value + b" ") == pool.find(b'"' + value) == -1


def test_names_cannot_be_guessed_from_values() -> None:
    """The same name under another key shares no digits but by chance, in neither half."""
    halves = {half for number in range(200)
              for value in [Sticky([b"db-master"], number.to_bytes(16, "big")).write(0)]
              for half in (value[:16], value[16:])}
    assert len(halves) == 400


# ---- what a value is, computed once more -------------------------------------------------------

def siphash(data: bytes, key: bytes) -> int:
    """SipHash-2-4, written from the paper (Aumasson, Bernstein 2012)."""
    mask = (1 << 64) - 1
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    a, b, c, d = (k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D,
                  k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573)

    def left(word: int, bits: int) -> int:
        return (word << bits | word >> (64 - bits)) & mask

    def rounds(many: int) -> None:
        nonlocal a, b, c, d
        for _ in range(many):
            a, c = (a + b) & mask, (c + d) & mask
            b, d = left(b, 13) ^ a, left(d, 16) ^ c
            a = left(a, 32)
            c, a = (c + b) & mask, (a + d) & mask
            b, d = left(b, 17) ^ c, left(d, 21) ^ a
            c = left(c, 32)

    whole = len(data) // 8 * 8
    last = data[whole:].ljust(7, b"\0") + bytes([len(data) & 255])
    for at in range(0, whole + 8, 8):
        block = int.from_bytes((data[:whole] + last)[at:at + 8], "little")
        d ^= block
        rounds(2)
        a ^= block
    c ^= 0xFF
    rounds(4)
    return a ^ b ^ c ^ d


def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & ((1 << 64) - 1)
    return value


def test_values_are_what_other_versions_and_machines_write_too() -> None:
    assert siphash(bytes(range(15)), KEY) == 0xA129CA6149BE45E5     # the paper, appendix A

    def words(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(8, "little") for number in numbers)

    for index, name in enumerate(NAMES):
        tag = siphash(words(fnv(name), 1), KEY)
        masked = fnv(name) ^ siphash(words(tag, 2), KEY)
        assert Sticky(NAMES, KEY).write(index) == b"%016x%016x" % (tag, masked)
