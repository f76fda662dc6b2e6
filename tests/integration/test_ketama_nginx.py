"""ketama beside a running nginx: key for key the same server.

A site that moves from nginx's ``hash KEY consistent`` to lbcore keeps the locality of its caches.
"""

from __future__ import annotations

import random
import zlib
from bisect import bisect_left
from pathlib import Path

import pytest

from lbcore._tables import ketama_seed
from tests.support.balance_lab import Lab
from tests.support.nginx_lab import NGINX, STREAM_MODULE, http_picks, stream_picks

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed (Debian: nginx-light, libnginx-mod-stream)"
)

# Nobody listens at any of these: see nginx_lab.
SETS: dict[str, list[tuple[str, int]]] = {
    "one server": [("127.0.0.1:1001", 1)],
    "five hosts": [(f"127.0.0.{i}:1001", 1) for i in range(1, 6)],
    "five ports": [(f"127.0.0.1:{port}", 1) for port in (1, 2, 3, 11, 1001)],
    "weights": [(f"127.0.0.1:{1000 + w}", w) for w in (1, 2, 3, 5, 8, 13, 100)],
    "listed out of order": [(f"127.0.0.1:{1000 + w}", w) for w in (8, 1, 100, 3, 2)],
    "unix sockets": [(f"unix:/nonexistent/{name}.sock", w) for name, w in
                     (("a", 1), ("b", 1), ("c", 4), ("with:80", 2))],
    "no port": [(f"127.0.0.{i}", i) for i in range(11, 15)],
    "IPv6": [("[::1]:1001", 1), ("[::1]:1002", 2), ("[::1]", 1), ("127.0.0.1:1001", 1)],
    "a name": [("localhost:1001", 2), ("localhost:1002", 1), ("127.0.0.1:1003", 1)],
    "of every kind": [("127.0.0.1:1001", 3), ("[::1]:1001", 1), ("unix:/nonexistent/x", 2),
                      ("127.0.0.2", 1), ("localhost:1009", 1)],
    "forty": [(f"127.0.{i}.1:1001", 1 + i * 7 % 10) for i in range(40)],
    "three hundred": [(f"127.0.{i}.1:1001", 1) for i in range(200)]
                     + [(f"127.1.{i}.1:1001", 3) for i in range(100)],
}
KEYS_PER_SET = 5000


def some_keys(count: int, seed: int) -> list[bytes]:
    """Keys as sites have them: numbers, addresses, paths, long tokens."""
    draw = random.Random(seed)
    kinds = (
        lambda: f"{draw.randrange(10**6)}",
        lambda: ".".join(str(draw.randrange(256)) for _ in range(4)),
        lambda: "/".join(f"part{draw.randrange(100)}" for _ in range(4)) + ".html",
        lambda: "".join(draw.choices("abcdefghijklmnopqrstuvwxyz0123456789-_", k=64)),
        lambda: draw.choice("abcdefghijklmnopqrstuvwxyz"),
    )
    return [kinds[n % len(kinds)]().encode() for n in range(count)]


def lab_of(servers: list[tuple[str, int]]) -> Lab:
    return Lab([w for _, w in servers], "ketama", names=[s for s, _ in servers])


def address_to_index(servers: list[tuple[str, int]]) -> dict[str, int]:
    """What nginx may call a server in ``$upstream_addr``, which is never a name."""
    table = {}
    for i, (server, _) in enumerate(servers):
        host, _, port = server.rpartition(":")
        if server.startswith("unix:"):
            table[server] = i
        elif host == "localhost":
            table |= {f"127.0.0.1:{port}": i, f"[::1]:{port}": i}
        elif not host or server.endswith("]"):
            table[f"{server}:80"] = i
        else:
            table[server] = i
    return table


@pytest.mark.parametrize("name", SETS)
def test_every_key_goes_where_nginx_sends_it(name: str, tmp_path: Path) -> None:
    servers = SETS[name]
    asked = some_keys(KEYS_PER_SET, seed=len(name))
    index = address_to_index(servers)
    theirs = [index[tried[0]] for tried in http_picks(tmp_path / "nginx", servers, asked)]
    ours = lab_of(servers).route(asked)
    differing = [key for key, a, b in zip(asked, ours, theirs, strict=True) if a != b]
    assert differing == []
    assert len(set(theirs)) >= min(len(servers), 100) - 1


def test_keys_of_shared_points_and_right_on_points_go_where_nginx_sends_them(
    tmp_path: Path,
) -> None:
    """Two servers own the same hash now and then; the first listed has it. Keys that lead
    to such a point, or hash to just a point, are too rare to meet by chance: they are sought."""
    servers = [(f"127.2.{i // 2}.{1 + i % 2}:1001", 10) for i in range(300)]
    owners: dict[int, set[int]] = {}
    for i, (server, weight) in enumerate(servers):
        point = 0
        for _ in range(160 * weight):
            point = zlib.crc32(ketama_seed(server) + point.to_bytes(4, "little"))
            owners.setdefault(point, set()).add(i)
    points = sorted(owners)
    shared = {point for point in points if len(owners[point]) > 1}
    assert len(shared) > 5
    every = ((b"%d" % n, zlib.crc32(b"%d" % n)) for n in range(400_000))
    found = [key for key, value in every
             if value in owners or points[bisect_left(points, value) % len(points)] in shared]
    assert len(found) > 10
    index = address_to_index(servers)
    theirs = [index[tried[0]] for tried in http_picks(tmp_path / "nginx", servers, found)]
    assert lab_of(servers).route(found) == theirs


def test_the_next_after_a_failure_is_the_next_in_nginx(tmp_path: Path) -> None:
    servers = SETS["five hosts"]
    asked = some_keys(KEYS_PER_SET, seed=1)
    index = address_to_index(servers)
    theirs = [
        [index[address] for address in tried]
        for tried in http_picks(tmp_path / "nginx", servers, asked, tries=3)
    ]
    lab = lab_of(servers)
    assert all(len(tried) == 3 for tried in theirs)
    assert [lab.order(key)[:3] for key in asked] == theirs


@pytest.mark.skipif(
    not STREAM_MODULE.is_file(), reason="nginx has no stream module (Debian: libnginx-mod-stream)"
)
def test_every_source_address_goes_where_nginx_stream_sends_it(tmp_path: Path) -> None:
    """What a TCP listener hashes: the client's address as text, as nginx's $remote_addr."""
    servers = SETS["weights"]
    draw = random.Random(7)
    sources = sorted({".".join(str(draw.randrange(1, 255)) for _ in range(4)) for _ in range(5000)})
    index = address_to_index(servers)
    theirs = [index[address] for address in stream_picks(tmp_path / "nginx", servers, sources)]
    assert lab_of(servers).route([source.encode() for source in sources]) == theirs
