"""The small languages inside strings: what is read, and what is refused with which hint."""

from __future__ import annotations

import pytest

from lbcore.config import values
from lbcore.config.plan import Address
from lbcore.config.values import BadValue


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0", 0), ("0s", 0), ("0ms", 0), ("500ms", 500), ("2s", 2000), ("1.5s", 1500),
        ("0.001s", 1), ("5m", 300_000), ("1h", 3_600_000), ("1.5h", 5_400_000),
        ("24d", 2_073_600_000),
    ],
)
def test_durations_are_read_in_their_unit(text: str, ms: int) -> None:
    assert values.parse_duration(text) == ms


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        (5, "a string with a unit", '"5s" or "5ms"'),
        (2.5, "a string with a unit", '"2.5s"'),
        (True, "a string with a unit", '"2s"'),
        (None, "a string with a unit", '"2s"'),
        ("5", "no unit", '"5s" or "5ms"'),
        ("5 s", "not a duration", "500ms"),
        ("", "not a duration", "500ms"),
        ("-2s", "not a duration", "500ms"),
        ("1m30s", "not a duration", "500ms"),
        ("2x", "not a unit of time", "ms, s, m, h and d"),
        ("2S", "not a unit of time", "ms, s, m, h and d"),
        ("0.5ms", "whole number of milliseconds", '"1ms"'),
        ("25d", "too long", '"24d"'),
        ("9" * 400 + "d", "too long", '"24d"'),
    ],
)
def test_bad_durations_are_refused_with_a_hint(value: object, message: str, hint: str) -> None:
    with pytest.raises(BadValue) as refused:
        values.parse_duration(value)
    assert message in refused.value.message
    assert hint in refused.value.hint


def test_a_duration_that_must_be_positive_refuses_zero() -> None:
    with pytest.raises(BadValue, match="longer than 0"):
        values.parse_duration("0", least_ms=1)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("[::1]:80", Address("::1", 80)),
        ("[0:0:0::1]:80", Address("::1", 80)),
        ("[::]:65535", Address("::", 65535)),
        ("unix:/run/a.sock", Address(path="/run/a.sock")),
    ],
)
def test_bind_and_backend_take_numeric_addresses_and_paths(text: str, address: Address) -> None:
    assert values.parse_bind(text) == address
    if not address.host.startswith("::") or address.host == "::1":
        assert values.parse_backend(text) == address


@pytest.mark.parametrize("host", ["localhost", "app.internal", "my_service", "a-b.c", "x.example."])
def test_backends_can_be_names_and_binds_cannot(host: str) -> None:
    assert values.parse_backend(f"{host}:80") == Address(host, 80)
    with pytest.raises(BadValue, match="is a name"):
        values.parse_bind(f"{host}:80")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("::1:8080", "in brackets", '"[::1]:8080"'),
        ("fd00::5:443", "in brackets", '"[fd00::5]:443"'),
        ("2001:db8::1", "in brackets", "["),
        ("10.0.0.1", "no port", '"10.0.0.1:8000"'),
        ("8080", "no address", '"127.0.0.1:8080"'),
        ("10.0.0.1:", "no valid port", "1 to 65535"),
        ("10.0.0.1:0", "no valid port", "1 to 65535"),
        ("10.0.0.1:65536", "no valid port", "1 to 65535"),
        ("10.0.0.1:http", "no valid port", "1 to 65535"),
        ("10.0.0.1:²", "no valid port", "1 to 65535"),
        ("10.0.0.256:80", "not an IPv4 address", "0 to 255"),
        ("10.0.0:80", "not an IPv4 address", "0 to 255"),
        ("[::1:80", "closing bracket", "[IPv6]:PORT"),
        ("[::1]", "no port", '"[::1]:8000"'),
        ("[10.0.0.1]:80", "not an IPv6 address", "[::1]"),
        ("[fe80::1%eth0]:80", "zone", "without a zone"),
        ("http://10.0.0.1:80/x", "not a URL", '"10.0.0.1:80"'),
        ("/run/a.sock", "no port", '"unix:/run/a.sock"'),
        ("unix:a.sock", "absolute", '"unix:/run/a.sock"'),
        ("unix:/run/", "directory", '"unix:/run/lb.sock"'),
        ("unix:/a\0b", "NUL", ""),
        ("unix:/" + "x" * 107, "108 bytes long", "/run/lbcore"),
        ("unix:/" + "ü" * 54, "109 bytes long", "/run/lbcore"),
        ("", "not an address", "10.0.0.1:8000"),
        (" 10.0.0.1:80", "not an address", "10.0.0.1:8000"),
        ("-a.b:80", "not a host name", "app.internal"),
        ("a..b:80", "not a host name", "app.internal"),
        ("a" * 64 + ":80", "not a host name", "app.internal"),
        ("0.0.0.0:80", "no address to connect to", '"127.0.0.1:80"'),
        ("[::]:80", "no address to connect to", '"[::1]:80"'),
    ],
)
def test_bad_backend_addresses_are_refused_with_a_hint(text: str, message: str, hint: str) -> None:
    with pytest.raises(BadValue) as refused:
        values.parse_backend(text)
    assert message in refused.value.message
    assert hint in refused.value.hint


@pytest.mark.parametrize("text", [":8080", "*:8080"])
def test_a_bind_without_an_address_is_refused_naming_both_wildcards(text: str) -> None:
    with pytest.raises(BadValue) as refused:
        values.parse_bind(text)
    assert '"0.0.0.0:8080"' in refused.value.hint
    assert '"[::]:8080"' in refused.value.hint


def test_the_longest_unix_path_is_107_bytes() -> None:
    path = "/" + "x" * 106
    assert values.parse_bind(f"unix:{path}").path == path


@pytest.mark.parametrize(
    ("text", "host"), [("10.0.0.5", "10.0.0.5"), ("fd00::5", "fd00::5"), ("[fd00::5]", "fd00::5")]
)
def test_a_source_is_an_address_without_a_port(text: str, host: str) -> None:
    assert values.parse_source(text) == Address(host, 0)


@pytest.mark.parametrize("text", ["10.0.0.5:80", "[fd00::5]:80", "eth0", "", "0.0.0.0", "::"])
def test_a_source_with_a_port_or_without_a_meaning_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        values.parse_source(text)


def test_networks_are_read_in_their_canonical_form() -> None:
    assert values.parse_network("10.0.0.0/8") == "10.0.0.0/8"
    assert values.parse_network("10.0.0.7") == "10.0.0.7/32"
    assert values.parse_network("FD00:0::/8") == "fd00::/8"
    with pytest.raises(BadValue) as refused:
        values.parse_network("10.0.0.7/8")
    assert '"10.0.0.0/8"' in refused.value.hint


@pytest.mark.parametrize(
    ("value", "pair"),
    [(204, (204, 204)), ("204", (204, 204)), ("200-399", (200, 399)), ("200 - 299", (200, 299))],
)
def test_statuses_are_numbers_or_ranges(value: object, pair: tuple[int, int]) -> None:
    assert values.parse_status(value) == pair


@pytest.mark.parametrize("value", [99, 600, "399-200", "2xx", True, None, 2.5, "200-"])
def test_what_is_no_status_is_refused(value: object) -> None:
    with pytest.raises(BadValue):
        values.parse_status(value)
