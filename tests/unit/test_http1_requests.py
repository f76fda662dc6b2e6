"""Request heads, a claim each. What is refused as an attack stands in test_http1_smuggling.py."""

from __future__ import annotations

import pytest

from lbcore._http1 import (
    FIELDS_MAX,
    HEAD_SIZE,
    FieldFlag,
    FieldId,
    Framing,
    Head,
    HeadFlag,
    Method,
    TargetForm,
    find_cookie,
    lists,
    parse_request,
)


def head_of(text: bytes) -> Head:
    head = parse_request(text)
    assert isinstance(head, Head), head
    return head


def with_lines(*lines: bytes, line: bytes = b"GET / HTTP/1.1") -> Head:
    return head_of(b"\r\n".join([line, b"Host: a", *lines]) + b"\r\n\r\n")


def flags_of(*lines: bytes, version: bytes = b"HTTP/1.1") -> HeadFlag:
    return with_lines(*lines, line=b"GET / " + version).flags


def hops_of(*lines: bytes) -> set[bytes]:
    return {line.name for line in with_lines(*lines).fields if line.flags & FieldFlag.FIELD_HOP}


def test_a_head_has_the_size_that_its_declaration_says() -> None:
    assert HEAD_SIZE == 104 + FIELDS_MAX * 16


# ---- the request line --------------------------------------------------------------------------


@pytest.mark.parametrize("method", [method for method in Method if method])
def test_methods_are_known_by_name(method: Method) -> None:
    name = method.name.removeprefix("METHOD_").encode()
    target = b"a:80" if method == Method.METHOD_CONNECT else b"/"
    head = head_of(name + b" " + target + b" HTTP/1.1\r\nHost: a:80\r\n\r\n")
    assert (head.method, head.method_text) == (method, name)


@pytest.mark.parametrize("name", [b"get", b"GETS", b"PROPFIND", b"M-SEARCH", b"!#$%&'*+-.^_`|~"])
def test_other_methods_are_kept_as_they_are(name: bytes) -> None:
    head = with_lines(line=name + b" / HTTP/1.1")
    assert (head.method, head.method_text) == (Method.METHOD_OTHER, name)


def test_a_method_may_have_64_letters_and_no_more() -> None:
    assert with_lines(line=b"A" * 64 + b" / HTTP/1.1").method_text == b"A" * 64
    assert parse_request(b"A" * 65) == -501


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", None),
        (b"/?", b"/", b""),
        (b"/a/b?c=d&e", b"/a/b", b"c=d&e"),
        (b"/a?b?c", b"/a", b"b?c"),
        (b"//a/../b", b"//a/../b", None),
        (b"/%7Ea;b=c", b"/%7Ea;b=c", None),
    ],
)
def test_origin_form_splits_at_the_first_question_mark(
    target: bytes, path: bytes, query: bytes | None
) -> None:
    head = with_lines(line=b"GET " + target + b" HTTP/1.1")
    assert head.form == TargetForm.FORM_ORIGIN
    assert (head.target, head.path, head.query, head.host) == (target, path, query, b"a")


@pytest.mark.parametrize("byte", [*b'<>"{}|^`\\', 0x80, 0xFF])
def test_targets_may_have_what_careless_clients_send(byte: int) -> None:
    target = b"/a" + bytes([byte]) + b"b"
    assert with_lines(line=b"GET " + target + b" HTTP/1.1").path == target


@pytest.mark.parametrize("byte", [*range(0x21), 0x7F, ord("#")])
def test_targets_have_no_control_bytes_no_space_and_no_fragment(byte: int) -> None:
    for at in range(12):        # at every position within eight bytes that are looked at at once
        target = b"/" + b"a" * at + bytes([byte]) + b"b" * 12
        assert parse_request(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n") == -400


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://a", b"", None),
        (b"http://a/", b"/", None),
        (b"http://a/b?c", b"/b", b"c"),
        (b"http://a?c", b"", b"c"),
        (b"HTTPS://A:443/b", b"/b", None),
    ],
)
def test_absolute_form_has_the_host_in_force(
    target: bytes, path: bytes, query: bytes | None
) -> None:
    head = with_lines(line=b"GET " + target + b" HTTP/1.1")
    assert head.form == TargetForm.FORM_ABSOLUTE
    assert (head.path, head.query) == (path, query)
    assert head.host.lower() in (b"a", b"a:443")


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://a.example/", b"a.example"),
        (b"http://a.example/", b"A.Example:80"),
        (b"http://a.example:80/", b"a.example"),
        (b"http://a.example:/", b"a.example:80"),
        (b"https://a.example/", b"a.example:443"),
        (b"http://[::1]:8080/", b"[::1]:8080"),
    ],
)
def test_absolute_form_agrees_with_host_over_case_and_default_port(
    target: bytes, host: bytes
) -> None:
    head_of(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://a.example/", b"b.example"),
        (b"http://a.example/", b"a.example:443"),
        (b"https://a.example/", b"a.example:80"),
        (b"http://a.example/", b"a.example."),
        (b"http://a.example/", b""),
    ],
)
def test_absolute_form_that_disagrees_with_host_is_refused(target: bytes, host: bytes) -> None:
    assert parse_request(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") == -400


def test_absolute_form_needs_no_host_in_http_1_0() -> None:
    assert head_of(b"GET http://a/b HTTP/1.0\r\n\r\n").host == b"a"


@pytest.mark.parametrize("host", [b"a.example:443", b"A.EXAMPLE:443", b"a.example"])
def test_connect_has_authority_form(host: bytes) -> None:
    head = head_of(b"CONNECT a.example:443 HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert head.form == TargetForm.FORM_AUTHORITY
    assert (head.host, head.path, head.query) == (b"a.example:443", b"", None)


def test_an_asterisk_is_for_options_only() -> None:
    head = with_lines(line=b"OPTIONS * HTTP/1.1")
    assert (head.form, head.path, head.host) == (TargetForm.FORM_ASTERISK, b"", b"a")
    assert parse_request(b"GET * HTTP/1.1\r\nHost: a\r\n\r\n") == -400


@pytest.mark.parametrize(
    ("version", "minor"), [(b"HTTP/1.1", 1), (b"HTTP/1.0", 0), (b"HTTP/1.2", 1), (b"HTTP/1.9", 1)]
)
def test_a_higher_minor_version_counts_as_1(version: bytes, minor: int) -> None:
    assert with_lines(line=b"GET / " + version).minor == minor


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/3.0", b"HTTP/0.9"])
def test_another_major_version_is_not_supported(version: bytes) -> None:
    assert parse_request(b"GET / " + version) == -505


def test_an_empty_line_before_a_request_is_skipped_and_counted() -> None:
    text = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    head = head_of(b"\r\n" + text)
    assert head.size == len(text) + 2
    assert (head.method_text, head.target, head.host) == (b"GET", b"/x", b"a")


# ---- Host --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [b"a", b"a.b-c_d~e", b"10.0.0.1:8080", b"a:0", b"a:65535", b"a:", b"[::]", b"[::1]:80",
     b"[1:2:3:4:5:6:7:8]", b"[1::8]", b"[1:2:3:4:5:6:7::]", b"[::2:3:4:5:6:7:8]",
     b"[::ffff:10.0.0.1]", b"[1:2:3:4:5:6:10.0.0.1]", b"[2001:DB8::]"],
)
def test_hosts_are_names_and_addresses_with_a_port(host: bytes) -> None:
    assert head_of(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").host == host


@pytest.mark.parametrize(
    "host",
    [b"a:65536", b"a:000080", b"a:-1", b"a:8a", b":80", b"[]", b"[:]", b"[:::]", b"[1]",
     b"[1:2:3:4:5:6:7]", b"[1:2:3:4:5:6:7:8:9]", b"[1::2::3]", b"[12345::]", b"[1:2:3:4:5:6:7:8::]",
     b"[1:2:3:4::5:6:7:8]", b"[:1:2:3:4:5:6:7]", b"[1:2:3:4:5:6:7:]", b"[::1.2.3]",
     b"[::1.2.3.256]", b"[::1.2.3.04]", b"[1.2.3.4]", b"[1:2:3:4:5:6:7:1.2.3.4]", b"[::g]",
     b"[v1.a]", b"[fe80::1%eth0]", b"[::1", b"::1", b"[::1]]", b"[::1]80", b"a b", b"a/b", b"a@b"],
)
def test_other_hosts_are_refused(host: bytes) -> None:
    assert parse_request(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") == -400


def test_http_1_0_needs_no_host() -> None:
    assert head_of(b"GET / HTTP/1.0\r\n\r\n").host == b""
    assert head_of(b"GET / HTTP/1.0\r\nHost:\r\n\r\n").host == b""
    assert parse_request(b"GET / HTTP/1.1\r\n\r\n") == -400


# ---- fields ------------------------------------------------------------------------------------


def test_values_are_without_the_blanks_around_them() -> None:
    head = with_lines(b"A:b", b"C: \t d \t e\t ", b"F:", b"G: \t ", b"H: \xc3\xa4\xff")
    assert [(line.name, line.value) for line in head.fields[1:]] == [
        (b"A", b"b"), (b"C", b"d \t e"), (b"F", b""), (b"G", b""), (b"H", b"\xc3\xa4\xff"),
    ]


@pytest.mark.parametrize("byte", [*range(9), 10, 11, 12, 13, *range(14, 32), 127])
def test_values_have_no_control_byte_but_the_tab(byte: int) -> None:
    for at in range(12):
        text = b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * at + bytes([byte]) + b"c" * 12
        assert parse_request(text + b"\r\n\r\n") == -400


@pytest.mark.parametrize(
    "byte", sorted({*range(256)} - {*b"!#$%&'*+-.^_`|~"} - {*range(0x30, 0x3B)}
                   - {*range(0x41, 0x5B)} - {*range(0x61, 0x7B)}))
def test_names_are_tokens(byte: int) -> None:
    for name in (bytes([byte]) + b"a", b"a" + bytes([byte])):
        assert parse_request(b"GET / HTTP/1.1\r\n" + name + b": b\r\nHost: a\r\n\r\n") == -400


def known(field: FieldId) -> bytes:
    return field.name.removeprefix("FIELD_").replace("_", "-").lower().encode()


@pytest.mark.parametrize("field", [field for field in FieldId if 0 < field < FieldId.FIELD_IDS])
def test_fields_that_lbcore_acts_on_are_known_in_any_case(field: FieldId) -> None:
    value = {b"host": b"a", b"content-length": b"1", b"transfer-encoding": b"chunked"}.get(
        known(field), b"x")
    for name in (known(field), known(field).upper(), known(field).title()):
        for behind in (b"", b"Padding-Behind-It: 0123456789012345678901234567890123456789\r\n"):
            text = b"GET / HTTP/1.1\r\n" + name + b": " + value + b"\r\n"
            text += b"" if field == FieldId.FIELD_HOST else b"Host: a\r\n"
            head = head_of(text + behind + b"\r\n")
            assert head.fields[0].id == field
            assert head.first[field] == 0


@pytest.mark.parametrize("field", [field for field in FieldId if 0 < field < FieldId.FIELD_IDS])
def test_names_that_are_nearly_known_are_others(field: FieldId) -> None:
    name = known(field)
    near = {name[:-1], name + b"s", name[1:], name.replace(b"-", b"_"), name.replace(b"o", b"0"),
            name[:1] + b"~" + name[2:], name.replace(b"-", b"")} - {name, b""}
    for other in near - {known(each) for each in FieldId}:
        assert with_lines(other + b": x").fields[1].id == FieldId.FIELD_OTHER, other


def test_the_first_of_repeated_fields_is_found() -> None:
    head = with_lines(b"Cookie: a=1", b"Via: x", b"Cookie: b=2")
    assert head.first[FieldId.FIELD_COOKIE] == 1
    assert [line.id for line in head.fields].count(FieldId.FIELD_COOKIE) == 2


def test_underscores_in_names_are_marked() -> None:
    head = with_lines(b"X_Real_IP: 10.0.0.1", b"X-Real-IP: 10.0.0.2", b"_: x")
    assert [bool(line.flags & FieldFlag.FIELD_UNDERSCORE) for line in head.fields] == [
        False, True, False, True]


# ---- connection --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "lines", "kept"),
    [
        (b"HTTP/1.1", [], True),
        (b"HTTP/1.1", [b"Connection: close"], False),
        (b"HTTP/1.1", [b"Connection: x, CLOSE"], False),
        (b"HTTP/1.1", [b"Connection: keep-alive", b"Connection: close"], False),
        (b"HTTP/1.1", [b"Connection: keep-alive, close"], False),
        (b"HTTP/1.1", [b"Connection: closed"], True),
        (b"HTTP/1.0", [], False),
        (b"HTTP/1.0", [b"Connection: Keep-Alive"], True),
        (b"HTTP/1.0", [b"Connection: keep-alive, close"], False),
        (b"HTTP/1.0", [b"Proxy-Connection: keep-alive"], False),
    ],
)
def test_a_connection_is_kept_after_version_and_connection(
    version: bytes, lines: list[bytes], kept: bool
) -> None:
    assert bool(flags_of(*lines, version=version) & HeadFlag.HEAD_KEEP_ALIVE) == kept


@pytest.mark.parametrize(
    ("version", "lines", "upgrade"),
    [
        (b"HTTP/1.1", [b"Connection: Upgrade", b"Upgrade: websocket"], True),
        (b"HTTP/1.1", [b"Connection: keep-alive, upgrade", b"Upgrade: x/1"], True),
        (b"HTTP/1.1", [b"Upgrade: websocket"], False),
        (b"HTTP/1.1", [b"Connection: upgrade"], False),
        (b"HTTP/1.1", [b"Connection: upgrade", b"Upgrade: h2c"], False),
        (b"HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket, H2C"], False),
        (b"HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket", b"Upgrade: h2c"], False),
        (b"HTTP/1.0", [b"Connection: upgrade", b"Upgrade: websocket"], False),
    ],
)
def test_an_upgrade_needs_both_fields_and_http_1_1_and_is_never_h2c(
    version: bytes, lines: list[bytes], upgrade: bool
) -> None:
    assert bool(flags_of(*lines, version=version) & HeadFlag.HEAD_UPGRADE) == upgrade


def test_hop_by_hop_fields_are_marked() -> None:
    names = [b"Connection", b"Keep-Alive", b"Proxy-Connection", b"TE", b"Upgrade",
             b"Proxy-Authenticate", b"Proxy-Authorization", b"Proxy-Authentication-Info",
             b"HTTP2-Settings"]
    others = [b"Trailer", b"Accept", b"Via", b"Y", b"Authorization", b"Content-Length: 1"]
    lines = [name + b": x" if b":" not in name else name for name in [*names, *others]]
    assert hops_of(*lines) == set(names)
    assert hops_of(b"Transfer-Encoding: chunked") == {b"Transfer-Encoding"}


def test_fields_that_connection_names_are_hop_by_hop() -> None:
    assert hops_of(b"X-A: 1", b"Connection: x-a , X-b,,\tclose", b"x-B: 2", b"X-C: 3",
                   b"Connection: X-D", b"x-d: 4", b"X-D: 5") == {
        b"X-A", b"x-B", b"Connection", b"x-d", b"X-D"}
    assert hops_of(b"Connection: trailer", b"Trailer: x") == {b"Connection", b"Trailer"}


@pytest.mark.parametrize(
    "name",
    [b"Cookie", b"Authorization", b"X-Forwarded-For", b"Forwarded", b"X-Real-IP", b"X-Request-ID",
     b"Cache-Control", b"Content-Type", b"Content-Encoding", b"Range", b"If-None-Match", b"Expect"],
)
def test_fields_for_all_recipients_stay_when_connection_names_them(name: bytes) -> None:
    assert hops_of(name + b": x", b"Connection: close, " + name.lower()) == {b"Connection"}


@pytest.mark.parametrize("name", [b"host", b"Content-Length"])
def test_a_request_whose_connection_names_host_or_length_is_refused(name: bytes) -> None:
    text = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close, %s\r\n\r\n"
    assert parse_request(text % name) == -400


def test_connection_may_name_32_fields_and_no_more() -> None:
    def text(count: int) -> bytes:
        names = b", ".join(b"x%d" % i for i in range(count))
        return b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, " + names + b"\r\n\r\n"

    head_of(text(32))
    assert parse_request(text(33)) == -400


def test_expectations_are_told_apart() -> None:
    assert flags_of(b"Expect: 100-Continue") & HeadFlag.HEAD_EXPECT
    assert not flags_of(b"Expect: 100-continue") & HeadFlag.HEAD_EXPECT_OTHER
    assert flags_of(b"Expect: 200-ok") & HeadFlag.HEAD_EXPECT_OTHER
    assert flags_of(b"Expect: 100-continue", b"Expect: x") & HeadFlag.HEAD_EXPECT_OTHER
    assert flags_of(b"Expect: 100-continue, x") & HeadFlag.HEAD_EXPECT_OTHER
    old = flags_of(b"Expect: 100-continue", version=b"HTTP/1.0")
    assert not old & (HeadFlag.HEAD_EXPECT | HeadFlag.HEAD_EXPECT_OTHER)


def test_te_trailers_is_seen_in_any_te_field() -> None:
    assert flags_of(b"TE: gzip;q=0.5, Trailers") & HeadFlag.HEAD_TRAILERS
    assert flags_of(b"TE: gzip", b"TE: trailers") & HeadFlag.HEAD_TRAILERS
    assert not flags_of(b"TE: gzip") & HeadFlag.HEAD_TRAILERS


# ---- framing -----------------------------------------------------------------------------------


def test_without_fields_for_it_a_request_has_no_body() -> None:
    assert with_lines(line=b"POST / HTTP/1.1").framing == Framing.BODY_NONE


@pytest.mark.parametrize(
    ("text", "length"),
    [(b"0", 0), (b"1", 1), (b"0042", 42), (b"4611686018427387904", 2**62), (b"0" * 99 + b"7", 7)],
)
def test_a_length_frames_the_body(text: bytes, length: int) -> None:
    head = with_lines(b"Content-Length: " + text)
    assert (head.framing, head.length) == (Framing.BODY_LENGTH, length)
    assert head.flags & HeadFlag.HEAD_LENGTH_GIVEN


@pytest.mark.parametrize("digits", range(19, 42))
def test_a_length_of_many_digits_never_wraps(digits: int) -> None:
    for text in (b"9" * digits, b"1" + b"0" * digits, b"%d" % (2**64 * 10 ** (digits - 19) + 5)):
        sent = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: " + text + b"\r\n\r\n"
        assert (int(text) <= 2**62) == (parse_request(sent) != -400)


def test_chunked_frames_the_body() -> None:
    head = with_lines(b"Transfer-Encoding: chunked")
    assert head.framing == Framing.BODY_CHUNKED
    assert not head.flags & HeadFlag.HEAD_LENGTH_GIVEN


# ---- limits and pieces -------------------------------------------------------------------------


def test_a_request_line_beyond_the_limit_is_414_and_a_head_431() -> None:
    line = b"GET /" + b"a" * 100 + b" HTTP/1.1\r\n"
    text = line + b"Host: a\r\nB: " + b"c" * 100 + b"\r\n\r\n"
    assert isinstance(parse_request(text, max_size=len(text)), Head)
    assert parse_request(text, max_size=len(text) - 1) == -431
    assert parse_request(text, max_size=len(line)) == -431
    assert parse_request(text, max_size=len(line) - 1) == -414
    assert parse_request(text[:len(line) - 1], max_size=len(line)) == 0
    assert parse_request(text[:20], max_size=20) == -414


def test_what_follows_a_head_does_not_count_against_its_limit() -> None:
    text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert isinstance(parse_request(text + b"x" * 1000, max_size=len(text)), Head)


def test_more_fields_than_allowed_are_431() -> None:
    def text(count: int) -> bytes:
        return b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * (count - 1) + b"\r\n"

    assert len(head_of(text(FIELDS_MAX)).fields) == FIELDS_MAX
    assert parse_request(text(FIELDS_MAX + 1)) == -431
    assert isinstance(parse_request(text(5), max_fields=5), Head)
    assert parse_request(text(6), max_fields=5) == -431
    assert parse_request(text(FIELDS_MAX + 1), max_fields=100_000) == -431


@pytest.mark.parametrize(
    "start",
    [b"\x16\x03\x01", b"\0", b" ", b"GET \r\n", b"GET / HTP", b"GET / HTTP/1.1\n", b"\r\r",
     b"GET / HTTP/1.1\r\n :", b"GET / HTTP/1.1\r\nA B", b"SSH-2.0-OpenSSH_9.2\r\n"],
)
def test_garbage_is_refused_before_its_end(start: bytes) -> None:
    assert parse_request(start) == -400


def test_a_long_head_that_arrives_slowly_is_not_parsed_for_every_byte() -> None:
    text = b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 5000
    assert parse_request(text + b"\0", seen=len(text)) == 0
    assert parse_request(text + b"\0" + b"c" * 4000, seen=len(text)) == -400
    assert parse_request(text + b"\0\r\n\r\n", seen=len(text)) == -400
    assert parse_request(text + b"\0\n\n", seen=len(text)) == -400
    for cut in range(len(text), len(text) + 4):
        assert isinstance(parse_request(text + b"\r\n\r\n", seen=cut), Head)


# ---- cookies and lists -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "name", "value"),
    [
        (b"Cookie: a=1; b=2; c=3\r\n", b"b", b"2"),
        (b"Cookie: a=1\r\nX: y\r\ncookie: b=2\r\n", b"b", b"2"),
        (b"Cookie: a=1;b=2;c\r\n", b"b", b"2"),
        (b"Cookie: b=1; b=2\r\n", b"b", b"1"),
        (b"Cookie: b=\r\n", b"b", b""),
        (b"Cookie: b=a=c ; d\r\n", b"b", b"a=c"),
        (b"Cookie: ab=1; B=2; bb=3\r\n", b"b", None),
        (b"Cookie: b\r\n", b"b", None),
        (b"Cookie: ;;\r\n", b"b", None),
        (b"Cookie:\r\n", b"b", None),
        (b"X-Cookie: b=1\r\n", b"b", None),
        (b"", b"b", None),
    ],
)
def test_cookies_are_found_by_their_exact_name(
    lines: bytes, name: bytes, value: bytes | None
) -> None:
    assert find_cookie(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n", name) == value


@pytest.mark.parametrize(
    ("value", "listed"),
    [(b"close", True), (b"a, CLOSE\t, b", True), (b",close", True), (b"closed", False),
     (b"a close", False), (b"", False), (b"clo,se", False), (b'"close"', False)],
)
def test_lists_are_of_whole_tokens(value: bytes, listed: bool) -> None:
    assert lists(value, b"close") == listed
