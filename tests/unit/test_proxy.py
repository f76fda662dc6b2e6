"""PROXY protocol headers, case by case and against nginx and HAProxy, and addresses as text."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import mmap
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbcore._proxy import (
    ENDPOINT_SIZE,
    MALFORMED,
    MAX,
    MORE,
    OUT_MAX,
    Endpoint,
    build,
    contains,
    from_sockaddr,
    parse,
    text,
    to_sockaddr,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
BEFORE: tuple[Endpoint, Endpoint] = ((b"\x09\x09\x09\x09", 9), None)


def at(address: str, port: int) -> Endpoint:
    return ipaddress.ip_address(address).packed, port


def v2(rest: bytes, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


TCP4 = bytes([1, 2, 3, 4, 5, 6, 7, 8]) + struct.pack("!HH", 80, 443)
TCP6 = bytes(range(32)) + struct.pack("!HH", 80, 443)


def test_an_endpoint_is_20_bytes() -> None:
    assert ENDPOINT_SIZE == 20


# ---- version 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "source", "destination"),
    [
        ("TCP4 1.2.3.4 5.6.7.8 80 443", at("1.2.3.4", 80), at("5.6.7.8", 443)),
        ("TCP4 0.0.0.0 255.255.255.255 0 65535", at("0.0.0.0", 0), at("255.255.255.255", 65535)),
        ("TCP6 :: ::1 1 2", at("::", 1), at("::1", 2)),
        ("TCP6 2001:DB8::1 2001:db8:0:0:0:0:0:2 1 2", at("2001:db8::1", 1), at("2001:db8::2", 2)),
        ("TCP6 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1 2",
         at("1:2:3:4:5:6:7:0", 1), at("0:2:3:4:5:6:7:8", 2)),
        ("TCP6 0001:02::7:8 1::0008 1 2", at("1:2::7:8", 1), at("1::8", 2)),
        ("TCP6 ::ffff:1.2.3.4 1:2:3:4:5:6:7.8.9.10 1 2",
         at("::ffff:1.2.3.4", 1), at("1:2:3:4:5:6:708:90a", 2)),
        ("TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
         " 65535 65535", at("ffff:" * 7 + "ffff", 65535), at("ffff:" * 7 + "ffff", 65535)),
    ],
)
def test_a_line_names_both_ends(line: str, source: Endpoint, destination: Endpoint) -> None:
    header = f"PROXY {line}\r\n".encode()
    assert parse(header + b"GET /", *BEFORE) == (len(header), source, destination)


@pytest.mark.parametrize(
    "line",
    ["UNKNOWN", "UNKNOWN ", "UNKNOWN 1.2.3.4 5.6.7.8 1 2", "UNKNOWN \0\xff what ever",
     "UNKNOWN " + "x" * 91],
)
def test_an_unknown_line_leaves_the_connection_as_it_is(line: str) -> None:
    header = f"PROXY {line}\r\n".encode("latin-1")
    assert parse(header + b"GET /", *BEFORE) == (len(header), *BEFORE)


@pytest.mark.parametrize(
    "data",
    [
        b"G", b"Q", b"PU", b"p", b"PROXY\t", b"PROXY  ", b"PROXY T4", b"PROXY TCP5",
        b"PROXY TCP4  ", b"PROXY TCP4 x", b"PROXY TCP4 01", b"PROXY TCP4 256", b"PROXY TCP4 1..",
        b"PROXY TCP4 1.2.3.4.", b"PROXY TCP4 1.2.3 ", b"PROXY TCP4 1.2.3.4\t", b"PROXY TCP4 -",
        b"PROXY TCP4 :", b"PROXY TCP4 1.2.3.4  ", b"PROXY TCP4 1.2.3.4 5.6.7.8 00",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 01", b"PROXY TCP4 1.2.3.4 5.6.7.8 65536",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 +", b"PROXY TCP4 1.2.3.4 5.6.7.8 \r",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 ",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx",
        b"PROXY TCP6 1.", b"PROXY TCP6 :1", b"PROXY TCP6 :::", b"PROXY TCP6 1:::",
        b"PROXY TCP6 1::2::", b"PROXY TCP6 12345", b"PROXY TCP6 g", b"PROXY TCP6 1:2:3:4:5:6:7:8:",
        b"PROXY TCP6 1:2:3:4:5:6:7 ", b"PROXY TCP6 1:2:3:4:5:6:7: ", b"PROXY TCP6 1:2:3:4:5:6:7::8",
        b"PROXY TCP6 ::2:3:4:5:6:7:8:",
        b"PROXY TCP6 ::1%", b"PROXY TCP6 [",
        b"PROXY TCP6 1:2:3:4:5:6:7:1.", b"PROXY TCP6 1:2:3:4:5:1.", b"PROXY TCP6 ::2:3:4:5:6:7:1.",
        b"PROXY TCP6 ::01.", b"PROXY TCP6 ::1a.", b"PROXY TCP6 ::256.", b"PROXY TCP6 ::1.2.3.4:",
        b"PROXY UNKNOWNX", b"PROXY UNKNOWN\n", b"PROXY UNKNOWN \n", b"PROXY UNKNOWN \rx",
        b"PROXY UNKNOWN " + b"x" * 92,
    ],
)
def test_a_line_is_refused_at_the_byte_that_spoils_it(data: bytes) -> None:
    assert parse(data, *BEFORE) == (MALFORMED, *BEFORE)
    assert parse(data[:-1], *BEFORE) == (MORE, *BEFORE)


def test_a_line_may_have_107_bytes_and_no_more() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"
    assert len(longest) == 107
    assert parse(longest)[0] == 107
    assert parse(longest[:-2])[0] == MORE
    assert parse(longest[:-1])[0] == MORE
    assert parse(longest[:-2] + b"x\r\n")[0] == MALFORMED
    dotted = b"1111:2222:3333:4444:5555:6666:100.100.100.100"
    assert parse(b"PROXY TCP6 %s %s 100 100\r\n" % (dotted, dotted))[0] == MALFORMED


# ---- version 2 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"", b"\4\0\0", b"\4\0\3abc\2\0\1x", b"\x20\0\5\0\0\0\0\0"])
@pytest.mark.parametrize(
    ("family", "addresses", "source", "destination"),
    [
        (0x11, TCP4, at("1.2.3.4", 80), at("5.6.7.8", 443)),
        (0x21, TCP6, (TCP6[:16], 80), (TCP6[16:32], 443)),
    ],
)
def test_a_binary_header_names_both_ends_whatever_tlvs_follow(
    family: int, addresses: bytes, source: Endpoint, destination: Endpoint, tail: bytes
) -> None:
    header = v2(addresses + tail, family=family)
    assert parse(header + b"\x16\x03\x01", *BEFORE) == (len(header), source, destination)


@pytest.mark.parametrize(
    "header",
    [
        v2(b"", command=0x20, family=0),
        v2(b"", command=0x20, family=0xFF),         # a LOCAL header's family is not to be read
        v2(TCP4, command=0x20),
        v2(b"junk", command=0x20),
        v2(b"", family=0), v2(b"junk", family=0), v2(b"ju", family=0x10), v2(b"ju", family=0x01),
        v2(TCP4, family=0x12), v2(TCP6, family=0x22),
        v2(bytes(216), family=0x31), v2(bytes(216) + b"\4\0\0", family=0x32),
    ],
)
def test_a_header_of_no_tcp_connection_leaves_the_connection_as_it_is(header: bytes) -> None:
    assert parse(header + b"data", *BEFORE) == (len(header), *BEFORE)


@pytest.mark.parametrize(
    "data",
    [
        SIGNATURE[:11] + b"\r",
        SIGNATURE + b"\x11", SIGNATURE + b"\x31", SIGNATURE + b"\x22", SIGNATURE + b"\x2f",
        SIGNATURE + b"\x21\x41", SIGNATURE + b"\x21\x13", SIGNATURE + b"\x21\xf0",
        SIGNATURE + b"\x21\x11\x00\x0b",            # too short for two IPv4 addresses
        SIGNATURE + b"\x21\x21\x00\x23", SIGNATURE + b"\x21\x31\x00\xd7",
        SIGNATURE + b"\x21\x11\x00\x0d",            # one byte is no TLV
        SIGNATURE + b"\x21\x11\x00\x0e",
        SIGNATURE + b"\x21\x11\x10",                # 4 KiB and more
        SIGNATURE + b"\x20\x00\x0f\xf1",            # 4097 in all
        v2(TCP4 + b"\4\0\2x")[:-1],                 # a TLV longer than what is left
        v2(TCP4 + b"\4\1" + bytes(200))[:30],
        v2(TCP4 + b"\4\0\1xyz")[:31],               # leaves two bytes
    ],
)
def test_a_binary_header_is_refused_at_the_byte_that_spoils_it(data: bytes) -> None:
    assert parse(data, *BEFORE) == (MALFORMED, *BEFORE)
    assert parse(data[:-1], *BEFORE) == (MORE, *BEFORE)


def test_a_binary_header_may_have_4096_bytes() -> None:
    header = v2(TCP4 + b"\4" + struct.pack("!H", MAX - 31) + bytes(MAX - 31))
    assert len(header) == MAX
    assert parse(header[:-1])[0] == MORE
    assert parse(header)[0] == MAX


def test_nothing_yet_is_not_malformed() -> None:
    assert parse(b"", *BEFORE) == (MORE, *BEFORE)


def test_no_byte_behind_the_data_is_read() -> None:
    """The data ends where the mapping does: reading on would be a segmentation fault."""
    page = mmap.PAGESIZE
    area = mmap.mmap(-1, 3 * page)
    hold = ctypes.c_char.from_buffer(area)
    libc = ctypes.CDLL(None, use_errno=True)
    last = ctypes.c_void_p(ctypes.addressof(hold) + 2 * page)
    assert libc.mprotect(last, ctypes.c_size_t(page), 0) == 0
    headers = [
        build(1, at("1.2.3.4", 1), at("::", 2)), build(1, at("::1", 1), at("::ffff:0:1", 2)),
        build(1, at("1.2.3.4", 1), at("5.6.7.8", 2)), v2(TCP4 + b"\4\0\3abc"),
        v2(TCP6, family=0x21), v2(b"", command=0x20), v2(bytes(216), family=0x31),
        b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", b"PROXY TCP6 ::1.2.3.4 1:: 1 2\r\n",
    ]
    for header in headers:
        for cut in range(len(header) + 1):
            area[2 * page - cut : 2 * page] = header[:cut]
            with memoryview(area) as view, view[2 * page - cut : 2 * page] as data:
                assert parse(data)[0] == (len(header) if cut == len(header) else MORE)
    del hold


# ---- writing -----------------------------------------------------------------------------------


def test_version_1_is_written_as_the_specification_has_it() -> None:
    assert build(1, at("192.168.0.1", 56324), at("192.168.0.11", 443)) == (
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    )
    assert build(1, at("2001:db8::1", 0), at("::ffff:1.2.3.4", 65535)) == (
        b"PROXY TCP6 2001:db8::1 ::ffff:102:304 0 65535\r\n"
    )


def test_version_2_is_written_as_the_specification_has_it() -> None:
    assert build(2, at("1.2.3.4", 80), at("5.6.7.8", 443)) == v2(TCP4)
    assert build(2, (TCP6[:16], 80), (TCP6[16:32], 443)) == v2(TCP6, family=0x21)


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        (None, None), (at("1.2.3.4", 1), None), (None, at("::1", 1)),
        (at("1.2.3.4", 1), at("::1", 1)),
    ],
)
def test_ends_that_no_header_can_name_are_not_named(
    source: Endpoint, destination: Endpoint
) -> None:
    assert build(1, source, destination) == b"PROXY UNKNOWN\r\n"
    assert build(2, source, destination) == v2(b"", command=0x20, family=0)


def test_the_longest_header_written_fits() -> None:
    longest = (b"\xff" * 16, 65535)
    assert len(build(1, longest, longest)) == 104 <= OUT_MAX
    assert len(build(2, longest, longest)) == 52


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="versions 1 and 2"):
        build(3, None, None)
    with pytest.raises(ValueError, match="4 or 16"):
        build(1, (b"abc", 1), None)
    with pytest.raises(OverflowError):
        build(1, (b"abcd", 65536), None)


# ---- addresses ---------------------------------------------------------------------------------


def sockaddr4(address: str, port: int) -> bytes:
    packed = ipaddress.ip_address(address).packed
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, packed)


def sockaddr6(address: str, port: int, scope: int = 0) -> bytes:
    packed = ipaddress.ip_address(address).packed
    head = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16s", port, 0, packed)
    return head + struct.pack("=I", scope)


def test_socket_addresses_become_endpoints_and_back() -> None:
    assert from_sockaddr(sockaddr4("1.2.3.4", 80)) == at("1.2.3.4", 80)
    assert from_sockaddr(sockaddr6("2001:db8::1", 443)) == at("2001:db8::1", 443)
    assert to_sockaddr(at("1.2.3.4", 80), True) == sockaddr4("1.2.3.4", 80)
    assert to_sockaddr(at("1.2.3.4", 80), False) == sockaddr4("1.2.3.4", 0)
    assert to_sockaddr(at("2001:db8::1", 443), True) == sockaddr6("2001:db8::1", 443)
    assert to_sockaddr(at("2001:db8::1", 443), False) == sockaddr6("2001:db8::1", 0)
    assert to_sockaddr(None, True) == b""


@pytest.mark.parametrize(
    "raw",
    [b"", b"\2", struct.pack("=H", socket.AF_UNIX), struct.pack("=H", socket.AF_UNIX) + b"/run/x\0",
     sockaddr4("1.2.3.4", 80)[:-1], sockaddr6("::1", 80)[:-1], bytes(28), b"\xff" * 28],
)
def test_any_other_socket_address_is_no_endpoint(raw: bytes) -> None:
    assert from_sockaddr(raw) is None
    assert text(from_sockaddr(raw)) == "unix:"


# Addresses whose text is a matter of rules: runs of zeros, ties, IPv4 inside.
PECULIAR = [
    "0.0.0.0", "255.255.255.254", "10.0.200.9", "::", "::1", "1::", "1::1", "0:0:1::", "::1:0:0",
    "1:0:0:2:0:0:3:4", "1:0:0:2::3", "1:0:2:0:3:0:4:0", "1:2:3:4:5:6:7:0", "0:2:3:4:5:6:7:8",
    "1:0:3:4:5:6:7:8", "abcd:ef01:2345:6789:ab:c:de:f", "::ffff:1.2.3.4", "::ffff:0:1.2.3.4",
    "::ffff:0.0.0.0", "::fffe:1.2.3.4", "::1.2.3.4", "::0.1.0.0", "::2", "::100", "::101", "::102",
    "::ffff", "::ff", "::1:0", "::1:1", "64:ff9b::1.2.3.4", "fe80::1", "2001:db8::ff00:42:8329",
]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.200.9", "10.0.200.9"), ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("::", "::"), ("::1", "::1"), ("1::", "1::"), ("1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"),
        ("::ffff:1.2.3.4", "::ffff:1.2.3.4"), ("::1.2.3.4", "::1.2.3.4"), ("::102", "::0.0.1.2"),
        ("::101", "::101"), ("::ffff:0:102:304", "::ffff:0:102:304"),
        ("ffff:" * 7 + "ffff", "ffff:" * 7 + "ffff"),
    ],
)
def test_text_is_short_and_canonical(address: str, expected: str) -> None:
    assert text(at(address, 1)) == expected


@pytest.mark.parametrize(
    ("network", "address", "inside"),
    [
        ("10.0.0.0/8", "10.255.1.2", True), ("10.0.0.0/8", "11.0.0.0", False),
        ("10.0.0.0/9", "10.127.9.9", True), ("10.0.0.0/9", "10.128.0.0", False),
        ("1.2.3.4/32", "1.2.3.4", True), ("1.2.3.4/32", "1.2.3.5", False),
        ("0.0.0.0/0", "9.9.9.9", True), ("0.0.0.0/0", "::1", False), ("::/0", "1.2.3.4", False),
        ("::/0", "::1", True), ("fe80::/10", "febf::1", True), ("fe80::/10", "fec0::1", False),
        ("::1/128", "::1", True), ("::1/128", "::2", False),
        ("2001:db8::/33", "2001:db8:7fff::", True), ("2001:db8::/33", "2001:db8:8000::", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True), ("10.0.0.0/8", "::ffff:11.1.2.3", False),
        ("10.0.0.0/8", "::10.1.2.3", False), ("::ffff:0:0/96", "::ffff:1.2.3.4", True),
    ],
)
def test_networks_contain_what_is_theirs(network: str, address: str, inside: bool) -> None:
    net = ipaddress.ip_network(network)
    assert contains(net.network_address.packed, net.prefixlen, at(address, 5)) is inside


def test_no_network_contains_an_unknown_address() -> None:
    assert not contains(bytes(4), 0, None)
    assert not contains(bytes(16), 0, None)


def test_an_impossible_prefix_length_contains_nothing() -> None:
    assert not contains(bytes(4), 33, (bytes(4), 0))
    assert not contains(bytes(16), 129, (bytes(16), 0))


# ---- beside nginx and HAProxy ------------------------------------------------------------------


@contextlib.contextmanager
def running(*command: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ask(peer: socket.socket, data: bytes) -> str:
    """Sends a header and a request; returns the body of the answer."""
    peer.settimeout(20)
    peer.sendall(data + b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while more := peer.recv(65536):
        answer += more
    return answer.partition(b"\r\n\r\n")[2].decode()


NGINX = """
daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr crit;
events { worker_connections 64; }
http {
    access_log off; client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t;
    uwsgi_temp_path t; scgi_temp_path t;
    server {
        listen unix:nginx.sock proxy_protocol;
        set_real_ip_from unix:; real_ip_header proxy_protocol;
        return 200 "$remote_addr $remote_port $proxy_protocol_server_addr \
$proxy_protocol_server_port";
    }
}
"""


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Path]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    path = tmp_path / "nginx.sock"
    (tmp_path / "nginx.conf").write_text(NGINX.replace("unix:nginx.sock", f"unix:{path}"))
    command = (program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"))
    with running(*command, stdout=subprocess.DEVNULL) as process:
        for _ in range(1000):       # nginx has no way to say that it listens
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(path)) == 0:
                    break
            assert process.poll() is None, "nginx did not start"
            time.sleep(0.01)
        yield path


def test_nginx_reads_every_header_and_writes_every_address_as_we_do(nginx: Path) -> None:
    for i, address in enumerate(PECULIAR):
        source = at(address, i + 1)
        destination = at("::ffff:9.8.7.6" if ":" in address else "9.8.7.6", 65535 - i)
        for version in (1, 2):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(nginx))
                heard = ask(peer, build(version, source, destination))
            # Version 1 hands nginx the server's text, version 2 its bytes: compare as addresses.
            remote, port, server, server_port = heard.split()
            assert (remote, port) == (text(source), str(i + 1))
            assert at(server, int(server_port)) == destination


@pytest.mark.parametrize("version", [1, 2])
def test_nginx_accepts_a_header_that_names_nobody(nginx: Path, version: int) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(nginx))
        assert ask(peer, build(version, None, None)).startswith("unix:")


HAPROXY = """
defaults
    timeout connect 10s
    timeout client 10s
    timeout server 10s
frontend reader
    mode http
    bind fd@{reader} accept-proxy
    http-request return status 200 content-type text/plain \
lf-string "%[src] %[src_port] %[dst] %[dst_port]"
listen sender1
    mode tcp
    bind fd@{sender1}
    bind fd@{unix1}
    server us 127.0.0.1:{port} send-proxy
listen sender2
    mode tcp
    bind fd@{sender2}
    bind fd@{unix2}
    unique-id-format %[rand]
    server us 127.0.0.1:{port} send-proxy-v2 proxy-v2-options crc32c,unique-id
"""


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[dict[str, socket.socket]]:
    """Listening sockets by name. HAProxy inherits them, so connecting needs no waiting."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        pytest.skip("haproxy is not installed")
    with contextlib.ExitStack() as stack:
        sockets = {}
        for name in ("reader", "sender1", "sender2", "origin"):
            sockets[name] = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for name in ("unix1", "unix2"):
            sockets[name] = stack.enter_context(socket.socket(socket.AF_UNIX))
            sockets[name].bind(str(tmp_path / name))
            sockets[name].listen()
        names = {name: sock.fileno() for name, sock in sockets.items()}
        names["port"] = sockets["origin"].getsockname()[1]
        config = tmp_path / "haproxy.cfg"
        config.write_text(HAPROXY.format(**names))
        inherited = [sock.fileno() for name, sock in sockets.items() if name != "origin"]
        stack.enter_context(
            running(program, "-db", "-f", str(config), pass_fds=inherited,
                    stdout=subprocess.DEVNULL, cwd=os.fspath(tmp_path))
        )
        yield sockets


def relayed(origin: socket.socket, front: socket.socket) -> tuple[bytes, Endpoint, Endpoint]:
    """What arrives at the origin when a client of ``front`` says hello; the client's own ends."""
    with socket.socket(front.family) as client:
        client.settimeout(20)
        client.connect(front.getsockname())
        ends = client.getsockname(), client.getpeername()
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        origin.settimeout(20)
        server, _ = origin.accept()
        with server:
            server.settimeout(20)
            data = b""
            while more := server.recv(65536):
                data += more
        if front.family == socket.AF_UNIX:
            return data, None, None
        return data, at(*ends[0]), at(*ends[1])


@pytest.mark.parametrize("front", ["sender1", "sender2"])
def test_headers_that_haproxy_sends_are_understood(
    haproxy: dict[str, socket.socket], front: str
) -> None:
    data, source, destination = relayed(haproxy["origin"], haproxy[front])
    length, *ends = parse(data)
    assert ends == [source, destination]
    assert data[length:] == b"hello"


@pytest.mark.parametrize("front", ["unix1", "unix2"])
def test_headers_that_haproxy_sends_for_unix_clients_leave_the_connection_as_it_is(
    haproxy: dict[str, socket.socket], front: str
) -> None:
    data, _, _ = relayed(haproxy["origin"], haproxy[front])
    length, *ends = parse(data, *BEFORE)
    assert ends == [*BEFORE]
    assert data[length:] == b"hello"


@pytest.mark.parametrize("version", [1, 2])
def test_haproxy_understands_our_headers(haproxy: dict[str, socket.socket], version: int) -> None:
    for source, destination in [
        (at("1.2.3.4", 5), at("6.7.8.9", 10)), (at("2001:db8::1", 1), at("::1", 65535))
    ]:
        with socket.create_connection(haproxy["reader"].getsockname()) as peer:
            remote, port, server, server_port = ask(
                peer, build(version, source, destination)
            ).split()
        assert at(remote, int(port)) == source
        assert at(server, int(server_port)) == destination
    with socket.create_connection(haproxy["reader"].getsockname()) as peer:
        own = at(*peer.getsockname())
        remote, port, *_ = ask(peer, build(version, None, None)).split()
    assert at(remote, int(port)) == own
