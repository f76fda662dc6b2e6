"""Requests that two HTTP parsers might read in two ways, and how lbcore must read each.

A case is what a client sends on one connection. lbcore understands the requests in `meant`, in that
order, and then refuses what follows with the status `refused` and closes; without `refused` it goes
on reading, and `waits` says that the last request is not complete. A bad body is found out after
its head was accepted and perhaps sent on: then an origin may see the beginning of that request,
but never a request that is not in `meant`.

`SMUGGLED` is the target of the requests that are hidden in others: no origin must ever see one.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.http1 import Meant

SMUGGLED = b"/smuggled"
INNER = b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n"


@dataclass(frozen=True)
class Case:
    name: str
    sent: bytes
    meant: tuple[Meant, ...] = ()
    refused: int | None = None
    waits: bool = False
    why: str = ""


def post(lines: bytes, rest: bytes = b"", line: bytes = b"POST /x HTTP/1.1") -> bytes:
    return line + b"\r\nHost: a.example\r\n" + lines + b"\r\n" + rest


def x(body: bytes = b"", method: bytes = b"POST", target: bytes = b"/x",
      host: bytes = b"a.example", trailers: tuple[tuple[bytes, bytes], ...] = ()) -> Meant:
    return Meant(method, target, host, body, trailers)


def chunked(rest: bytes, lines: bytes = b"") -> bytes:
    return post(b"Transfer-Encoding: chunked\r\n" + lines, rest)


END = b"0\r\n\r\n"
CL = b"Content-Length: %d\r\n"
LEN = CL % len(INNER)
NEXT = x(method=b"GET", target=b"/next")
THEN = b"GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n"

BOTH = [
    Case("CL.TE", post(b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", END + b"G"),
         refused=400, why="RFC 9112, 6.3: both is an attack, or as good as one"),
    Case("TE.CL", post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
                       b"%x\r\n%s\r\n" % (len(INNER), INNER) + END), refused=400),
    Case("CL.TE, far apart", post(
        b"Content-Length: 6\r\nA: b\r\nC: d\r\ntransfer-encoding:chunked\r\n", END + b"G"),
        refused=400),
    Case("CL 0 and TE", post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", END),
         refused=400, why="also when both say the same"),
    Case("TE unknown and CL", post(b"Transfer-Encoding: x\r\n" + LEN, INNER), refused=400),
    Case("TE empty and CL", post(b"Transfer-Encoding:\r\n" + LEN, INNER), refused=400),
]


def coding(name: str, line: bytes, status: int, why: str = "") -> Case:
    """A Transfer-Encoding that some parser takes for chunked, and some does not."""
    return Case(f"TE.TE {name}", post(line + b"\r\n", END + INNER), refused=status, why=why)


CODINGS = [
    coding("xchunked", b"Transfer-Encoding: xchunked", 501),
    coding("identity", b"Transfer-Encoding: identity", 501, "gone since RFC 7230"),
    coding("gzip alone", b"Transfer-Encoding: gzip", 501),
    coding("gzip, chunked", b"Transfer-Encoding: gzip, chunked", 501),
    coding("chunked, identity", b"Transfer-Encoding: chunked, identity", 400),
    coding("chunked, chunked", b"Transfer-Encoding: chunked, chunked", 400),
    coding("empty member before", b"Transfer-Encoding: , chunked", 400),
    coding("empty member behind", b"Transfer-Encoding: chunked,", 400),
    coding("empty", b"Transfer-Encoding: ", 400),
    coding("twice", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
    coding("then cow", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", 400),
    coding("cow first", b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", 501),
    coding("space before the colon", b"Transfer-Encoding : chunked", 400),
    coding("tab before the colon", b"Transfer-Encoding\t: chunked", 400),
    coding("vertical tab before the value", b"Transfer-Encoding:\x0bchunked", 400),
    coding("form feed behind the value", b"Transfer-Encoding: chunked\x0c", 400),
    coding("NUL behind the value", b"Transfer-Encoding: chunked\0", 400),
    coding("no-break space", b"Transfer-Encoding: chunked\xa0", 400),
    coding("Kelvin sign", b"Transfer-Encoding: chun\xe2\x84\xaaed", 400,
           "becomes a k where text is lowered as Unicode"),
    coding("quoted", b'Transfer-Encoding: "chunked"', 400),
    coding("parameter", b"Transfer-Encoding: chunked;q=1", 400),
    coding("behind a bare LF", b"A: b\nTransfer-Encoding: chunked", 400),
    coding("behind a bare CR", b"A: b\rTransfer-Encoding: chunked", 400),
    coding("ended by a bare CR", b"Transfer-Encoding: chunked\r", 400),
    coding("folded", b"Transfer-Encoding:\r\n chunked", 400),
    coding("folded behind another", b"A: b\r\n Transfer-Encoding: chunked", 400),
    coding("folded with a tab", b"A: b\r\n\tTransfer-Encoding: chunked", 400),
    coding("NUL in the name", b"Transfer\0-Encoding: chunked", 400),
    coding("soft hyphen in the name", b"Transfer\xadEncoding: chunked", 400),
    coding("colon before", b":Transfer-Encoding: chunked", 400),
    Case("TE.TE in HTTP/1.0",
         post(b"Transfer-Encoding: chunked\r\n", END + INNER, line=b"POST /x HTTP/1.0"),
         refused=400, why="RFC 9112, 6.1: whoever sent it does not know what it means"),
    Case("TE.TE upper case", post(b"TRANSFER-ENCODING: CHUNKED\r\n", b"2\r\nab\r\n" + END + THEN),
         (x(b"ab"), NEXT), why="names and codings know no case"),
    Case("TE.TE tab before the value", post(b"Transfer-Encoding:\tchunked\t \r\n", END + THEN),
         (x(), NEXT)),
    Case("TE.TE underscore", post(b"Transfer_Encoding: chunked\r\n" + CL % 3, b"abc" + THEN),
         (x(b"abc"), NEXT), why="another field; dropped, since CGI and WSGI take it for this one"),
]


def length(name: str, line: bytes, why: str = "") -> Case:
    return Case(f"CL {name}", post(line + b"\r\n", b"abcde" + INNER), refused=400, why=why)


LENGTHS = [
    length("twice, differing", b"Content-Length: 5\r\nContent-Length: 6"),
    length("twice, the same", b"Content-Length: 5\r\nContent-Length: 5",
           "RFC 9112, 6.3 lets a proxy repair it; nothing honest sends it"),
    length("list", b"Content-Length: 5, 5"),
    length("list without spaces", b"Content-Length: 5,5"),
    length("plus", b"Content-Length: +5"),
    length("minus", b"Content-Length: -5"),
    length("hexadecimal", b"Content-Length: 0x5"),
    length("exponent", b"Content-Length: 5e0"),
    length("fraction", b"Content-Length: 5.0"),
    length("underscore between digits", b"Content-Length: 0_5", "int() of Python takes it"),
    length("space between digits", b"Content-Length: 0 5"),
    length("semicolon", b"Content-Length: 5;"),
    length("quoted", b'Content-Length: "5"'),
    length("empty", b"Content-Length:"),
    length("NUL behind", b"Content-Length: 5\0"),
    length("vertical tab before", b"Content-Length: \x0b5"),
    length("Arabic digit", b"Content-Length: \xd9\xa5", "int() of Python takes it"),
    length("wrapping 64 bits", b"Content-Length: 18446744073709551621"),
    length("wrapping 32 bits and 64", b"Content-Length: 79228162514264337593543950341"),
    length("beyond 2**62", b"Content-Length: 4611686018427387905"),
    length("space before the colon", b"Content-Length : 5"),
    length("folded", b"Content-Length: 5\r\n 6"),
    length("bare LF behind", b"Content-Length: 5\nA: b"),
    length("named by Connection", b"Connection: Content-Length\r\nContent-Length: 5",
           "whoever obeys removes it, and the body becomes the next request"),
    Case("CL leading zeros", post(b"Content-Length: 0005\r\n", b"abcde" + THEN),
         (x(b"abcde"), NEXT), why="one number, forwarded as 5"),
    Case("CL blanks around", post(b"Content-Length: \t5 \r\n", b"abcde" + THEN),
         (x(b"abcde"), NEXT)),
    Case("CL underscore", post(b"Content_Length: 5\r\n", THEN), (x(), NEXT),
         why="another field; dropped, since CGI and WSGI take it for this one"),
    Case("CL.0", post(LEN, INNER + THEN), (x(INNER), NEXT),
         why="a body is a body; the origin must hear its length"),
    Case("CL.0 with GET", post(LEN, INNER + THEN, line=b"GET /x HTTP/1.1"),
         (x(INNER, method=b"GET"), NEXT)),
    Case("CL.0 with HEAD", post(LEN, INNER + THEN, line=b"HEAD /x HTTP/1.1"),
         (x(INNER, method=b"HEAD"), NEXT)),
    Case("0.CL", post(b"", THEN), (x(), NEXT), why="no length is no body: what follows is next"),
    Case("CL short", post(CL % (len(INNER) + 9), INNER), waits=True,
         why="the body is not complete: a timeout, not a request"),
    Case("Expect and CL.0", post(b"Expect: 100-continue\r\n" + LEN, INNER + THEN),
         (x(INNER), NEXT), why="a client may send the body without waiting"),
]


def chunk(name: str, rest: bytes, why: str = "") -> Case:
    return Case(f"chunk {name}", chunked(rest + INNER), refused=400, why=why)


CHUNKS = [
    chunk("size with 0x", b"0x3\r\nabc\r\n"),
    chunk("size with plus", b"+3\r\nabc\r\n"),
    chunk("size with minus", b"-3\r\nabc\r\n"),
    chunk("size with underscore", b"0_3\r\nabc\r\n"),
    chunk("size missing", b"\r\nabc\r\n"),
    chunk("size missing, extension", b";a=b\r\nabc\r\n"),
    chunk("space before the size", b" 3\r\nabc\r\n"),
    chunk("space behind the size", b"3 \r\nabc\r\n"),
    chunk("size wrapping 64 bits", b"10000000000000003\r\nabc\r\n"),
    chunk("size wrapping 32 bits", b"100000000000000000000003\r\nabc\r\n"),
    chunk("size beyond 2**62", b"4000000000000001\r\nabc\r\n"),
    chunk("size negative as signed", b"ffffffffffffffff\r\nabc\r\n"),
    chunk("size of 17 digits", b"00000000000000003\r\nabc\r\n"),
    chunk("size ended by LF", b"3\nabc\r\n"),
    chunk("size ended by CR", b"3\rabc\r\n"),
    chunk("size ended by CR CR LF", b"3\r\r\nabc\r\n"),
    chunk("size with a letter beyond f", b"3g\r\nabc\r\n"),
    chunk("extension ended by LF", b"3;a\nabc\r\n", "TERM.EXT: one side sees the line end here"),
    chunk("extension with CR", b"3;a\rb\r\nabc\r\n"),
    chunk("extension with NUL", b"3;a\0\r\nabc\r\n"),
    chunk("extension in quotes over a line", b'3;a="\nb"\r\nabc\r\n'),
    chunk("extension oversized", b"3;" + b"a" * 4096 + b"\r\nabc\r\n"),
    chunk("data longer than its size", b"3\r\nabcd\r\n"),
    chunk("data shorter than its size", b"3\r\nab\r\n"),
    chunk("data ended by LF", b"3\r\nabc\n"),
    chunk("data ended by CR", b"3\r\nabc\r"),
    chunk("data ended by nothing", b"3\r\nabc0\r\n\r\n"),
    chunk("data ended by two bytes of any kind", b"3\r\nabcXX0\r\n\r\n",
          "EXT.TERM: some skip two bytes without a look"),
    chunk("last one ended by LF", b"3\r\nabc\r\n0\n\n"),
    chunk("trailers ended by LF", b"0\r\n\n"),
    chunk("trailer folded", b"0\r\nA: b\r\n c\r\n\r\n"),
    chunk("trailer without colon", b"0\r\nA\r\n\r\n"),
    chunk("trailer with a space before the colon", b"0\r\nA : b\r\n\r\n"),
    chunk("trailer with bare LF", b"0\r\nA: b\n\r\n"),
    Case("chunk extensions", chunked(b"3;a=b; c;d=\"e;f\"\r\nabc\r\n0;x\r\n\r\n" + THEN),
         (x(b"abc"), NEXT), why="allowed, ignored, not sent on"),
    Case("chunk blanks before an extension", chunked(b"3 \t;a\r\nabc\r\n" + END + THEN),
         (x(b"abc"), NEXT)),
    Case("chunk sizes in every case", chunked(
        b"A\r\n0123456789\r\na\r\n0123456789\r\n" + END + THEN),
        (x(b"0123456789" * 2), NEXT)),
    Case("chunk of zeros", chunked(b"003\r\nabc\r\n000\r\n\r\n" + THEN), (x(b"abc"), NEXT)),
    Case("chunk that looks like a request", chunked(
        b"%x\r\n%s\r\n" % (len(INNER), INNER) + END + THEN), (x(INNER), NEXT)),
    Case("chunk trailer frames nothing", chunked(
        b"0\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\nHost: b\r\nX: y\r\n\r\n" + THEN),
        (x(trailers=((b"X", b"y"),)), NEXT), why="fields that frame, route or authenticate are "
        "no trailers, and are dropped"),
    Case("chunk unfinished", chunked(b"3\r\nabc\r\n"), waits=True),
    Case("chunk last one without its empty line", chunked(b"0\r\n" + b"A: b\r\n"), waits=True),
]


def first(name: str, line: bytes, status: int = 400, why: str = "") -> Case:
    """A request line."""
    return Case(f"line {name}", line + b"\r\nHost: a.example\r\n\r\n" + INNER, refused=status,
                why=why)


LINES = [
    first("two spaces", b"GET  /x HTTP/1.1"),
    first("two spaces before the version", b"GET /x  HTTP/1.1"),
    first("tab", b"GET\t/x HTTP/1.1"),
    first("tab before the version", b"GET /x\tHTTP/1.1"),
    first("space before", b" GET /x HTTP/1.1"),
    first("space behind", b"GET /x HTTP/1.1 "),
    first("two targets", b"GET /x /smuggled HTTP/1.1"),
    first("two versions", b"GET /smuggled HTTP/1.1 HTTP/1.1"),
    first("CR behind", b"GET /x HTTP/1.1\r"),
    first("CR in the target", b"GET /x\rGET HTTP/1.1"),
    first("LF in the target", b"GET /x\nGET HTTP/1.1"),
    first("NUL in the target", b"GET /x\0 HTTP/1.1"),
    first("DEL in the target", b"GET /x\x7f HTTP/1.1"),
    first("fragment", b"GET /x#/smuggled HTTP/1.1"),
    first("no version", b"GET /x", why="HTTP/0.9: nothing says where it ends"),
    first("lower-case version", b"GET /x http/1.1"),
    first("version with two digits", b"GET /x HTTP/1.10"),
    first("version 0.9", b"GET /x HTTP/0.9", 505),
    first("version 2.0", b"GET /x HTTP/2.0", 505),
    first("version 11", b"GET /x HTTP/11"),
    first("method with a colon", b"GE:T /x HTTP/1.1"),
    first("method with NUL", b"GE\0T /x HTTP/1.1"),
    first("method of 65 letters", b"A" * 65 + b" /x HTTP/1.1", 501),
    first("path without its slash", b"GET x HTTP/1.1"),
    first("asterisk with GET", b"GET * HTTP/1.1"),
    first("authority with GET", b"GET a.example:80 HTTP/1.1"),
    first("CONNECT with a path", b"CONNECT /x HTTP/1.1"),
    first("CONNECT without a port", b"CONNECT a.example HTTP/1.1"),
    first("CONNECT to another host", b"CONNECT b.example:80 HTTP/1.1"),
    first("absolute, another host", b"GET http://b.example/x HTTP/1.1"),
    first("absolute, another port", b"GET http://a.example:81/x HTTP/1.1"),
    first("absolute, user information", b"GET http://a.example@b.example/x HTTP/1.1"),
    first("absolute, user information before ours", b"GET http://b@a.example/x HTTP/1.1"),
    first("absolute, no host", b"GET http:///x HTTP/1.1"),
    first("absolute, another scheme", b"GET ftp://a.example/x HTTP/1.1"),
    first("absolute, backslash for a slash", b"GET http://a.example\\@b/x HTTP/1.1"),
    Case("line LF before", b"\nGET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", refused=400),
    Case("line two empty ones before", b"\r\n\r\nGET /x HTTP/1.1\r\nHost: a.example\r\n\r\n",
         refused=400),
    Case("line an empty one before", b"\r\n" + THEN + b"\r\n" + THEN, (NEXT, NEXT),
         why="RFC 9112, 2.2: old clients send one behind a body"),
    Case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", refused=505),
    Case("TLS", b"\x16\x03\x01\x02\x00\x01\x00", refused=400, why="https to a port of http"),
    Case("line ended by LF", b"GET /x HTTP/1.1\nHost: a.example\n\n", refused=400),
    Case("absolute, the same host", post(b"", line=b"GET HTTP://A.EXAMPLE:80/x HTTP/1.1"),
         (x(method=b"GET", target=b"HTTP://A.EXAMPLE:80/x", host=b"A.EXAMPLE:80"),)),
    Case("version 1.2", b"GET /x HTTP/1.2\r\nHost: a.example\r\n\r\n", (x(method=b"GET"),),
         why="RFC 9110, 2.5: a higher minor version is read as the highest known"),
]


def host(name: str, lines: bytes, why: str = "") -> Case:
    return Case(f"Host {name}", b"GET /x HTTP/1.1\r\n" + lines + b"\r\n\r\n", refused=400, why=why)


HOSTS = [
    host("missing", b"A: b"),
    host("empty", b"Host:"),
    host("twice", b"Host: a.example\r\nHost: b.example"),
    host("twice, the same", b"Host: a.example\r\nHost: a.example"),
    host("list", b"Host: a.example, b.example"),
    host("list without spaces", b"Host: a.example,b.example"),
    host("with user information", b"Host: a@b.example"),
    host("with a path", b"Host: a.example/x"),
    host("with a query", b"Host: a.example?x"),
    host("with a fragment", b"Host: a.example#x"),
    host("with a backslash", b"Host: a.example\\b"),
    host("with a space", b"Host: a.example b.example"),
    host("with an escape", b"Host: %61.example"),
    host("with a quote", b'Host: a.example"'),
    host("with a semicolon", b"Host: a.example;b"),
    host("with letters for a port", b"Host: a.example:http"),
    host("with too large a port", b"Host: a.example:65536"),
    host("with two ports", b"Host: a.example:80:80"),
    host("with a port only", b"Host: :80"),
    host("with a bracket open", b"Host: [::1"),
    host("with text behind the bracket", b"Host: [::1]a"),
    host("with a zone", b"Host: [fe80::1%25eth0]"),
    host("with no address in brackets", b"Host: [a.example]"),
    host("with a space before the colon", b"Host : a.example"),
    host("folded", b"Host: a.example\r\n b.example"),
    host("behind a space", b" Host: a.example"),
    host("in another one's fold", b"A: b\r\n Host: b.example\r\nHost: a.example"),
    host("named by Connection", b"Host: a.example\r\nConnection: close, host"),
    host("with bytes beyond ASCII", b"Host: \xc3\xa4.example"),
    Case("Host missing in HTTP/1.0", b"GET /x HTTP/1.0\r\n\r\n", (x(method=b"GET", host=b""),)),
    Case("Host twice in HTTP/1.0", b"GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", refused=400),
]


def line(name: str, bad: bytes, why: str = "") -> Case:
    return Case(f"field {name}", post(bad + b"\r\n", INNER), refused=400, why=why)


FIELDS = [
    line("without a colon", b"A"),
    line("without a name", b": b"),
    line("with a space in its name", b"A B: c"),
    line("with a parenthesis in its name", b"A(: c"),
    line("with a byte beyond ASCII in its name", b"\xc3\xa4: b"),
    line("with NUL in its name", b"A\0: b"),
    line("with NUL in its value", b"A: b\0c"),
    line("with DEL in its value", b"A: b\x7f"),
    line("with a bell in its value", b"A: \x07"),
    line("with CR in its value", b"A: b\rGET /smuggled HTTP/1.1"),
    line("with LF in its value", b"A: b\nGET /smuggled HTTP/1.1"),
    line("with CR CR LF behind", b"A: b\r"),
    line("empty line of spaces", b" "),
    Case("empty line ended by LF", b"GET /x HTTP/1.1\r\nHost: a.example\r\n\n" + INNER,
         refused=400),
    Case("empty line of CR only", b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r" + INNER,
         refused=400),
    Case("field with what Unicode calls a line end", post(b"A: b\xc2\x85c\r\n", THEN),
         (x(), NEXT), why="bytes from 0x80 on are text; str.splitlines() ends lines here"),
    Case("pipelined, second one bad", THEN + b"GET /x HTTP/1.1\r\n\r\n" + INNER, (NEXT,),
         refused=400, why="nothing behind a refusal is read"),
    Case("pipelined, garbage behind", THEN + b"\0\0\0" + INNER, (NEXT,), refused=400),
    Case("h2c upgrade", post(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                             b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", THEN), (x(), NEXT),
         why="never offered to a backend: its tunnel would hide requests from routes and rules"),
    Case("Connection names what a proxy before added",
         post(b"X-Forwarded-For: 10.0.0.1\r\nConnection: close, X-Forwarded-For\r\n"), (x(),),
         why="it stays"),
    Case("Connection names Transfer-Encoding",
         post(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", END), (x(),),
         why="it concerns one connection anyway, and is made anew for the next"),
]

CASES = [*BOTH, *CODINGS, *LENGTHS, *CHUNKS, *LINES, *HOSTS, *FIELDS]
