"""Claims about judging the answer to an HTTP check."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.health.reply import BODY_LIMIT, HEAD_LIMIT, Reply, describe_ranges

OK = ((200, 399),)


def judge(data: bytes, *, wanted=OK, needle=b"", step=0, close=True):
    reply = Reply(wanted, needle)
    for at in range(0, len(data), step or len(data) or 1):
        reply.feed(data[at:at + (step or len(data))])
    if close:
        reply.closed()
    return reply.verdict


@pytest.mark.parametrize("line", [
    b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 301 Moved",
    b"HTTP/1.1 200", b"HTTP/1.1 200 ",
])
def test_a_wanted_status_passes(line):
    assert judge(line + b"\r\n\r\n")[0]


@pytest.mark.parametrize("status", [404, 500, 503, 400])
def test_another_status_fails_and_says_what_was_wanted(status):
    ok, text = judge(b"HTTP/1.1 %d Whatever\r\n\r\n" % status)
    assert not ok
    assert text == f"status {status}, wanted 200-399"


def test_the_status_alone_decides_before_the_head_is_complete():
    assert judge(b"HTTP/1.1 200 OK\r\nServer: slow", close=False) == (True, "status 200")


def test_several_ranges_are_wanted_alternatives():
    wanted = ((200, 200), (404, 410))
    assert judge(b"HTTP/1.1 404 x\r\n\r\n", wanted=wanted)[0]
    assert not judge(b"HTTP/1.1 201 x\r\n\r\n", wanted=wanted)[0]
    assert describe_ranges(wanted) == "200, 404-410"


@pytest.mark.parametrize("garbage", [
    b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02F", b"HTTP/2 200\r\n\r\n", b"\r\n\r\n",
    b"HTTP/1.1 2x0 OK\r\n\r\n", b"HTTP/1.1  200 OK\r\n\r\n", b"HTTP/1.1 2000\r\n\r\n",
    b"HTTP/1.12 200 OK\r\n\r\n", b"HTTP/1.1 000 OK\r\n\r\n", b"\x00" * 100,
])
def test_what_is_no_http_answer_fails_at_once(garbage):
    verdict = judge(garbage, close=False)
    assert verdict is not None and not verdict[0]


@pytest.mark.parametrize(("data", "text"), [
    (b"", "closed without an answer"),
    (b"HTTP/1.1 20", "closed before the status line was complete"),
])
def test_an_answer_that_ends_too_early_fails(data, text):
    assert judge(data) == (False, text)


def test_interim_answers_are_not_the_answer():
    data = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 503 Busy\r\n\r\n"
    for step in (0, 1, 7):
        assert judge(data, step=step)[1].startswith("status 503")
    assert judge(data[:data.index(b"HTTP/1.1 503")], close=False) is None


@pytest.mark.parametrize("step", [0, 1, 3, 1000])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_body_is_searched_whatever_pieces_it_comes_in(step, framing):
    body = b"all of this is fine: status=GREEN, really"
    if framing == "length":
        data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    elif framing == "chunked":
        data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for at in range(0, len(body), 6):   # cuts the word in two
            piece = body[at:at + 6]
            data += b"%x;ext=1\r\n%b\r\n" % (len(piece), piece)
        data += b"0\r\n\r\n"
    else:
        data = b"HTTP/1.0 200 OK\r\n\r\n" + body
    assert judge(data, needle=b"status=GREEN", step=step) == (True, "status 200, body matches")
    ok, text = judge(data, needle=b"status=BLUE", step=step)
    assert not ok
    assert "status=BLUE" in text


def test_chunk_framing_is_not_part_of_the_body():
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n"
    assert not judge(data, needle=b"4")[0]
    assert judge(data, needle=b"fine")[0]


def test_what_follows_the_stated_length_is_not_body():
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokGREEN"
    assert not judge(data, needle=b"GREEN")[0]


@pytest.mark.parametrize(("status", "field"), [(200, b"Content-Length: 0"), (204, b"A: b")])
def test_a_missing_body_fails_without_waiting_for_the_end(status, field):
    data = b"HTTP/1.1 %d OK\r\n%b\r\n\r\n" % (status, field)
    assert judge(data, needle=b"x", close=False) == (
        False, f"status {status}, but the body has no 'x'")


def test_a_body_is_searched_up_to_64_kib():
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    just_inside = b"." * (BODY_LIMIT - 5) + b"GREEN"
    outside = b"." * (BODY_LIMIT - 4) + b"GREEN"
    assert judge(head + just_inside, needle=b"GREEN", step=4096)[0]
    assert judge(head + outside, needle=b"GREEN", step=4096) == (
        False, "status 200, but the first 64 KiB has no 'GREEN'")


@pytest.mark.parametrize("chunks", [b"zz\r\n", b"-1\r\n", b"5" * 2000, b"1\r\naXX\r\n"])
def test_a_malformed_chunked_body_fails(chunks):
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    assert judge(data, needle=b"nowhere", close=False) == (False, "malformed chunked body")


def test_an_endless_head_is_refused_not_stored():
    reply = Reply(OK, b"x")
    reply.feed(b"HTTP/1.1 200 OK\r\n")
    for _ in range(HEAD_LIMIT // 64 + 2):
        reply.feed(b"X-Filler: %053d\r\n" % 0)
    assert reply.over
    assert reply.verdict == (False, "head longer than 16 KiB")


def test_an_endless_status_line_is_refused():
    reply = Reply(OK)
    for _ in range(HEAD_LIMIT // 64 + 2):
        reply.feed(b"HTTP/1.1 200 " if not reply.started else b"O" * 64)
    assert reply.over and not reply.verdict[0]


def test_an_endless_body_after_the_verdict_is_not_read_for_ever():
    reply = Reply(OK)
    reply.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    fed = 0
    while not reply.over:
        reply.feed(b"." * 4096)
        fed += 4096
    assert fed <= BODY_LIMIT + HEAD_LIMIT + 4096
    assert reply.verdict == (True, "status 200")


@given(st.binary(max_size=300), st.integers(1, 20), st.sampled_from([b"", b"ok"]))
def test_no_answer_breaks_the_judge_and_every_one_gets_a_verdict(data, step, needle):
    assert judge(data, step=step, needle=needle) is not None


@given(st.binary(max_size=120), st.integers(1, 9))
def test_no_chunked_body_breaks_the_judge(data, step):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert judge(head + data, step=step, needle=b"ok") == judge(head + data, needle=b"ok")
