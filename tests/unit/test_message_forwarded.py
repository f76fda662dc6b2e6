"""Who the client is behind proxies, and what backends are told of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.exchange_lab import (
    PROXY,
    STRANGER,
    endpoint,
    exchange,
    field_of,
    fields_of,
    head_of,
)

TRUSTED = ("10.0.0.0/8", "2001:db8:ffff::/48")


def client_of(*fields: str, peer: str | None = PROXY, trusted: tuple[str, ...] = TRUSTED,
              forwarded: str = "x-forwarded") -> str:
    made = exchange(head_of("GET /", fields), peer=peer, trusted=trusted, forwarded=forwarded)
    for text in ("1.1.1.1", "2.2.2.2", "10.0.0.1", "10.0.0.2", STRANGER, "2001:db8::9"):
        address = endpoint(text)
        if address is not None and made.client is not None and made.client[0] == address[0]:
            return text
    return "unix" if made.client is None else "another"


def told(name: str, *fields: str, peer: str | None = STRANGER, **http: Any) -> str | None:
    made = exchange(head_of("GET /", fields), peer=peer, **{"trusted": TRUSTED, **http})
    return field_of(made.request(), name)


# ---- the client --------------------------------------------------------------------------------


def test_a_stranger_is_the_client_whatever_it_says() -> None:
    assert client_of("X-Forwarded-For: 1.1.1.1", peer=STRANGER) == STRANGER


def test_a_trusted_proxys_client_is_the_client() -> None:
    assert client_of("X-Forwarded-For: 1.1.1.1") == "1.1.1.1"


def test_of_a_list_the_rightmost_address_that_is_no_proxy_counts() -> None:
    assert client_of("X-Forwarded-For: 2.2.2.2, 1.1.1.1, 10.0.0.2") == "1.1.1.1"


def test_several_fields_are_one_list() -> None:
    assert client_of("X-Forwarded-For: 2.2.2.2", "x-forwarded-for: 1.1.1.1",
                     "X-Forwarded-For: 10.0.0.2") == "1.1.1.1"


def test_behind_proxies_only_the_farthest_is_the_client() -> None:
    assert client_of("X-Forwarded-For: 10.0.0.2, 10.3.3.3,10.4.4.4") == "10.0.0.2"


def test_without_a_list_the_proxy_is_the_client() -> None:
    assert client_of() == PROXY


@pytest.mark.parametrize("word", ["unknown", "_hidden", "1.1.1", "1.1.1.1.1", "1.1.1.1:x", "[::1",
                                  "1.1.1.1:99999", "\"1.1.1.1\"", "::1::2", "0x1.1.1.1",
                                  "1" * 100, "[1.1.1.1]", "1.1.1.1:"])
def test_what_is_no_address_ends_the_walk(word: str) -> None:
    assert client_of(f"X-Forwarded-For: 1.1.1.1, {word}") == PROXY
    assert client_of(f"X-Forwarded-For: {word}, 10.0.0.2") == "10.0.0.2"


def test_empty_elements_mean_nothing() -> None:
    assert client_of("X-Forwarded-For: , 1.1.1.1 ,, ", "X-Forwarded-For: ,") == "1.1.1.1"


@pytest.mark.parametrize(("word", "address", "port"), [
    ("1.1.1.1:80", "1.1.1.1", 80), ("2001:db8::9", "2001:db8::9", 0),
    ("[2001:db8::9]", "2001:db8::9", 0), ("[2001:db8::9]:443", "2001:db8::9", 443),
])
def test_addresses_may_have_ports(word: str, address: str, port: int) -> None:
    made = exchange(head_of("GET /", [f"X-Forwarded-For: {word}"]), peer=PROXY, trusted=TRUSTED)
    assert made.client == endpoint(address, port)


def test_a_very_long_list_of_proxies_is_not_walked_to_its_end() -> None:
    many = ", ".join(["10.0.0.2"] * 200)
    assert client_of(f"X-Forwarded-For: 1.1.1.1, {many}") == "10.0.0.2"


def test_a_unix_socket_is_trusted_as_soon_as_anybody_is() -> None:
    assert client_of("X-Forwarded-For: 1.1.1.1", peer=None) == "1.1.1.1"
    assert client_of("X-Forwarded-For: 1.1.1.1", peer=None, trusted=()) == "unix"


def test_a_proxy_is_known_by_its_ipv4_address_on_a_dual_socket_too() -> None:
    assert client_of("X-Forwarded-For: 1.1.1.1", peer="::ffff:10.0.0.1") == "1.1.1.1"


# ---- Forwarded (RFC 7239) ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [
    "for=1.1.1.1", "For=1.1.1.1;proto=http;by=10.0.0.1", "proto=http; for=\"1.1.1.1:80\"",
    "for=2.2.2.2, for=1.1.1.1, for=10.0.0.2", "for=1.1.1.1;host=\"a,b;for=2.2.2.2\"",
    "for=\"2.2.2.2, for=1.1.1.1", "for=2.2.2.2;host=\"x\\\", for=1.1.1.1;host=\"y\\\"\"",
    "for=\"1.1.1.1:_port\"",
])
def test_forwarded_names_the_client(value: str) -> None:
    assert client_of(f"Forwarded: {value}", forwarded="rfc7239") == "1.1.1.1"


def test_forwarded_has_ipv6_in_brackets_and_quotes() -> None:
    assert client_of("Forwarded: for=\"[2001:db8::9]:80\"", forwarded="rfc7239") == "2001:db8::9"


@pytest.mark.parametrize("value", ["for=unknown", "for=_x", "host=1.1.1.1", "for=", "1.1.1.1",
                                   "=1.1.1.1", "for=\"1.1.1.1"])
def test_a_forwarded_element_without_an_address_ends_the_walk(value: str) -> None:
    assert client_of(f"Forwarded: for=1.1.1.1, {value}", forwarded="rfc7239") == PROXY


@pytest.mark.parametrize(("forwarded", "client"), [
    ("x-forwarded", "1.1.1.1"), ("rfc7239", "2.2.2.2"), ("both", "1.1.1.1"), ("none", "1.1.1.1"),
])
def test_the_kind_that_is_sent_on_is_the_one_that_is_read(forwarded: str, client: str) -> None:
    assert client_of("Forwarded: for=2.2.2.2", "X-Forwarded-For: 1.1.1.1",
                     forwarded=forwarded) == client


def test_with_both_kinds_forwarded_is_asked_where_the_other_is_missing() -> None:
    assert client_of("Forwarded: for=2.2.2.2", forwarded="both") == "2.2.2.2"
    assert client_of("Forwarded: for=2.2.2.2", forwarded="x-forwarded") == PROXY


# ---- https -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fields", "forwarded", "secure"), [
    (["X-Forwarded-Proto: https"], "x-forwarded", True),
    (["X-Forwarded-Proto: HTTPS , http"], "x-forwarded", True),
    (["X-Forwarded-Proto: http, https"], "x-forwarded", False),
    (["X-Forwarded-Proto: "], "x-forwarded", False),
    (["Forwarded: for=1.1.1.1;proto=https"], "rfc7239", True),
    (["Forwarded: for=2.2.2.2;proto=https, for=1.1.1.1"], "rfc7239", False),
    (["X-Forwarded-Proto: https"], "rfc7239", False),
    ([], "both", False),
])
def test_the_scheme_is_a_trusted_proxys_word(fields: list[str], forwarded: str,
                                             secure: bool) -> None:
    head = head_of("GET /", fields)
    assert exchange(head, peer=PROXY, trusted=TRUSTED, forwarded=forwarded).secure == secure
    assert not exchange(head, peer=STRANGER, trusted=TRUSTED, forwarded=forwarded).secure


# ---- what backends are told --------------------------------------------------------------------


def test_a_strangers_word_is_replaced() -> None:
    lies = ["X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil",
            "x-forwarded-for: 8.8.8.8"]
    assert told("X-Forwarded-For", *lies) == STRANGER
    assert told("X-Forwarded-Proto", *lies) == "http"
    assert told("X-Forwarded-Host", *lies) == "example.com"


def test_a_trusted_proxys_word_is_kept_and_the_proxy_appended() -> None:
    words = ["X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop",
             "X-Forwarded-For: 8.8.8.8", "X-Forwarded-Port: 443"]
    assert told("X-Forwarded-For", *words, peer=PROXY) == f"9.9.9.9, 8.8.8.8, {PROXY}"
    assert told("X-Forwarded-Proto", *words, peer=PROXY) == "https"
    assert told("X-Forwarded-Host", *words, peer=PROXY) == "shop"
    assert told("X-Forwarded-Port", *words, peer=PROXY) == "443"


@pytest.mark.parametrize("name", ["X-Forwarded-Port", "X-Forwarded-Prefix", "x-forwarded-ssl",
                                  "X-Real-IP", "Forwarded"])
@pytest.mark.parametrize("forwarded", ["none", "x-forwarded"])
def test_a_strangers_word_of_this_kind_does_not_pass(name: str, forwarded: str) -> None:
    assert told(name, f"{name}: evil", forwarded=forwarded) is None


def test_where_nothing_is_said_a_trusted_proxys_word_still_passes() -> None:
    assert told("X-Forwarded-For", "X-Forwarded-For: 9.9.9.9", peer=PROXY,
                forwarded="none") == "9.9.9.9"
    assert told("X-Forwarded-For", "X-Forwarded-For: 9.9.9.9", forwarded="none") is None


def test_a_unix_peer_has_no_address_to_append() -> None:
    assert told("X-Forwarded-For", peer=None) is None
    assert told("X-Forwarded-For", "X-Forwarded-For: 9.9.9.9", peer=None) == "9.9.9.9"
    assert told("Forwarded", peer=None, forwarded="rfc7239") == (
        "for=unknown;host=example.com;proto=http")


def test_forwarded_quotes_what_must_be() -> None:
    made = exchange(head_of("GET /", host="example.com:8080"), peer="2001:db8::1",
                    forwarded="rfc7239").request()
    assert field_of(made, "Forwarded") == (
        'for="[2001:db8::1]";host="example.com:8080";proto=http')


def test_forwarded_of_a_trusted_proxy_is_kept() -> None:
    assert told("Forwarded", "Forwarded: for=9.9.9.9", peer=PROXY, forwarded="rfc7239") == (
        f"for=9.9.9.9, for={PROXY};host=example.com;proto=http")


# ---- the request id ----------------------------------------------------------------------------


@pytest.mark.parametrize("good", ["a", "x" * 128, "!\"<>&'~\\", "0f8b-4a:1=/"])
def test_a_request_id_is_kept_whoever_sent_it(good: str) -> None:
    made = exchange(head_of("GET /", [f"x-request-id: {good}"]))
    assert made.request_id == good
    assert fields_of(made.request()).count(("X-Request-ID", good)) == 1


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "caf\xe9", "a\tb"])
def test_what_is_none_is_replaced(bad: str) -> None:
    made = exchange(head_of("GET /", [f"X-Request-ID: {bad}"]))
    assert made.request_id == "fedcba98765432101000000000000000"
    assert field_of(made.request(), "X-Request-ID") == made.request_id


def test_two_request_ids_are_none() -> None:
    made = exchange(head_of("GET /", ["X-Request-ID: a", "X-Request-ID: b"]))
    assert field_of(made.request(), "X-Request-ID") == "fedcba98765432101000000000000000"


def test_without_request_ids_the_clients_field_passes_as_any_other() -> None:
    made = exchange(head_of("GET /", ["X-Request-ID: a b"]), request_id=False).request()
    assert field_of(made, "X-Request-ID") == "a b"
    assert field_of(exchange(head_of("GET /"), request_id=False).request(), "X-Request-ID") is None
