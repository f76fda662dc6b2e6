"""Tables of consistent hashing: pure functions of names, weights and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
import zlib
from collections import Counter
from struct import iter_unpack

import pytest

from lbcore._tables import (
    MAGLEV_LARGE_SIZE,
    MAGLEV_SIZE,
    is_prime,
    ketama_ring,
    ketama_seed,
    maglev_table,
    siphash,
)

MAGLEV_KNOWN = 0x9CF6C8D2      # five backends in a table of 251


def names(count: int) -> list[bytes]:
    return [f"backend-{i}".encode() for i in range(count)]


def entries(table: bytes) -> memoryview:
    return memoryview(table).cast("H")


def points(ring: bytes) -> list[tuple[int, int]]:
    return list(iter_unpack("=II", ring))


def test_hash_is_the_published_siphash() -> None:
    """CPython's hash of bytes is SipHash-1-3 under a key that PYTHONHASHSEED=0 makes zero."""
    if sys.hash_info.algorithm != "siphash13":
        pytest.skip("this Python hashes bytes with something else")
    program = "print([hash(bytes(range(n))) % 2**64 for n in range(1, 100)])"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [siphash(bytes(range(n))) for n in range(1, 100)] == ast.literal_eval(answer.stdout)


def test_hash_keys_are_independent() -> None:
    values = {siphash(b"10.0.0.1:80", key) for key in range(3)}
    assert len(values) == 3


def test_primes() -> None:
    assert [n for n in range(-3, 30) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    assert is_prime(MAGLEV_SIZE)
    assert is_prime(MAGLEV_LARGE_SIZE)
    assert not is_prime(MAGLEV_SIZE - 2)


# -- maglev


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 600])
def test_maglev_gives_equal_backends_equal_shares_to_one_entry(count: int) -> None:
    tally = Counter(entries(maglev_table(names(count), [1] * count)))
    assert len(tally) == count
    assert max(tally.values()) - min(tally.values()) <= 1


def test_maglev_shares_follow_weights() -> None:
    weights = [1, 2, 5, 0, 100, 7]
    table = entries(maglev_table(names(6), weights))
    tally = Counter(table)
    for i, weight in enumerate(weights):
        assert tally[i] == pytest.approx(len(table) * weight / sum(weights), abs=1)


def test_maglev_table_depends_on_names_not_on_their_order() -> None:
    order = list(range(20))
    weights = [1 + i % 4 for i in order]
    table = entries(maglev_table(names(20), weights))
    turned = order[7:] + order[:7]
    again = entries(maglev_table([names(20)[i] for i in turned], [weights[i] for i in turned]))
    assert [turned[entry] for entry in again] == list(table)


def test_maglev_table_depends_on_proportions_not_on_the_unit_of_weight() -> None:
    assert maglev_table(names(5), [1, 2, 3, 4, 5]) == maglev_table(names(5), [3, 6, 9, 12, 15])


def test_maglev_table_is_the_same_everywhere() -> None:
    """Nodes of different versions share traffic, so this changes with a note in the changelog."""
    table = maglev_table(names(5), [1, 2, 3, 4, 5], 251)
    assert zlib.crc32(bytes(list(entries(table)))) == MAGLEV_KNOWN


def test_maglev_follows_the_paper_when_weights_are_equal() -> None:
    """Pseudocode 1 of the paper, with backends in the order of their names."""
    size, count = 1009, 13
    order = sorted(range(count), key=lambda i: names(count)[i])
    offset = [siphash(name, 1) % size for name in names(count)]
    skip = [siphash(name, 2) % (size - 1) + 1 for name in names(count)]
    following = [0] * count
    expected = [-1] * size
    filled = 0
    while filled < size:
        for i in order:
            while True:
                at = (offset[i] + following[i] * skip[i]) % size
                following[i] += 1
                if expected[at] < 0:
                    break
            expected[at] = i
            filled += 1
            if filled == size:
                break
    assert list(entries(maglev_table(names(count), [1] * count, size))) == expected


@pytest.mark.parametrize("size", [2, 3, 5, 7])
def test_maglev_fills_even_the_smallest_table(size: int) -> None:
    assert set(entries(maglev_table(names(2), [1, 1], size))) == {0, 1}


def test_maglev_takes_a_larger_table_where_a_small_one_would_be_uneven() -> None:
    assert len(entries(maglev_table(names(600), [1] * 600))) == MAGLEV_SIZE
    assert len(entries(maglev_table(names(601), [1] * 601))) == MAGLEV_LARGE_SIZE
    assert len(entries(maglev_table(names(2), [1, 1000]))) == MAGLEV_LARGE_SIZE


def test_a_light_backend_beside_heavy_ones_still_gets_keys() -> None:
    weights = [1000] * 40 + [1]
    assert Counter(entries(maglev_table(names(41), weights)))[40] >= 1


def test_maglev_without_any_weight_is_empty() -> None:
    assert maglev_table(names(3), [0, 0, 0]) == b""
    assert maglev_table([], []) == b""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((names(2), [1]), "2 backends, but 1 weights"),
        (([b"a", b"a"], [1, 1]), "same name"),
        ((names(2), [1, -1]), "outside"),
        ((names(2), [1, 65536]), "outside"),
        ((names(2), [1, 1], 65536), "not prime"),
        ((names(5), [1] * 5, 3), "do not fit"),
    ],
)
def test_maglev_refuses_what_makes_no_table(arguments: tuple[object, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        maglev_table(*arguments)  # type: ignore[arg-type]


# -- ketama


def slow_ring(labels: list[str], weights: list[int]) -> list[tuple[int, int]]:
    """The ring by zlib's CRC and Python's stable sort."""
    every = []
    for i, (label, weight) in enumerate(zip(labels, weights, strict=True)):
        previous = 0
        for _ in range(160 * weight):
            previous = zlib.crc32(ketama_seed(label) + previous.to_bytes(4, "little"))
            every.append((previous, i))
    every.sort(key=lambda point: point[0])
    return [p for n, p in enumerate(every) if n == 0 or every[n - 1][0] != p[0]]


@pytest.mark.parametrize(
    ("label", "seed"),
    [
        ("10.0.0.1:80", b"10.0.0.1\x0080"),
        ("10.0.0.1", b"10.0.0.1\0"),
        ("[2001:db8::1]:80", b"[2001:db8::1]\x0080"),
        ("[2001:db8::1]", b"[2001:db8::1]\0"),
        ("cache-1.example:11211", b"cache-1.example\x0011211"),
        ("cache-1.example", b"cache-1.example\0"),
        ("unix:/run/a.sock", b"/run/a.sock\0"),
        ("UNIX:/run/a.sock", b"/run/a.sock\0"),
        ("unix:/run/a:80", b"/run/a:80\0"),
        ("unix:@abstract", b"@abstract\0"),
        ("host:", b"host\0"),
        ("12345", b"12345\0"),
        ("host:http", b"host:http\0"),
    ],
)
def test_ketama_reads_host_and_port_from_the_label(label: str, seed: bytes) -> None:
    assert ketama_seed(label) == seed


def test_ketama_ring_is_sorted_stable_and_without_repeated_hashes() -> None:
    labels = [f"10.0.{i >> 8}.{i & 255}:11211" for i in range(300)]
    weights = [i % 5 for i in range(300)]
    ring = points(ketama_ring(labels, weights))
    assert ring == slow_ring(labels, weights)


def test_of_servers_that_share_every_point_the_first_has_them() -> None:
    assert {i for _, i in points(ketama_ring(["a:1", "a:1"], [1, 1]))} == {0}


def test_first_listed_server_has_a_shared_point() -> None:
    """Among half a million points some hashes collide."""
    labels = [f"10.1.{i >> 8}.{i & 255}:80" for i in range(300)]
    ring = points(ketama_ring(labels, [10] * 300))
    assert len(ring) < 480_000
    assert ring == slow_ring(labels, [10] * 300)


def test_ketama_without_any_weight_is_empty() -> None:
    assert ketama_ring(["a:1", "b:1"], [0, 0]) == b""
    assert ketama_ring([], []) == b""


def test_ketama_refuses_a_ring_that_would_not_fit_and_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="use smaller weights, or maglev"):
        ketama_ring([f"10.0.0.{i}:80" for i in range(10)], [65535] * 10)
