"""Templates: text with ``$names`` in it, for header fields, redirects and rewritten paths.

``$name`` and ``${name}`` stand for something of the request, ``$1`` for what the first group of
the route's ``path_regex`` matched, ``${header.NAME}`` and ``${cookie.NAME}`` for a header field and
a cookie of the request, ``$$`` for a dollar sign. What a request does not have is empty.
"""

from __future__ import annotations

import difflib
import re
from typing import get_args

from lbcore.config.http_values import parse_cookie_name, parse_token
from lbcore.config.plan import Part, Segment, Template
from lbcore.config.values import BadValue

NAMES = tuple(
    name for name in get_args(Part) if name not in ("text", "header", "cookie", "capture")
)
_MARK = re.compile(r"\$(?:\$|\{([^{}$]*)\}|([a-z_]+)|([0-9]))")
# What others call these.
_ALSO_KNOWN_AS = {
    "remote_addr": "$client_ip", "remote_port": "$client_port", "request_uri": "$uri",
    "args": "$query", "query_string": "$query", "request_method": "$method",
    "server_port": "$port", "http_host": "$host", "upstream_addr": "$backend",
}


def parse_template(text: str) -> Template:
    """The pieces of a template. Raises BadValue."""
    pieces: list[Segment] = []
    literal = ""
    at = 0
    while (dollar := text.find("$", at)) >= 0:
        literal += text[at:dollar]
        found = _MARK.match(text, dollar)
        if found is None:
            raise BadValue(f'"{text}": nothing is called by the "$" here', '"$$" is a dollar sign')
        at = found.end()
        if found[0] == "$$":
            literal += "$"
            continue
        if literal:
            pieces.append(Segment("text", literal))
            literal = ""
        pieces.append(_named(found[1] or found[2] or found[3] or ""))
    literal += text[at:]
    if literal:
        pieces.append(Segment("text", literal))
    return tuple(pieces)


def parse_field_value(text: str) -> Template:
    """The template of a header field's value. Raises BadValue."""
    if any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in text):
        raise BadValue("a header field cannot contain control characters")
    if text != text.strip():
        raise BadValue(f'"{text}" begins or ends with blanks, which no receiver keeps', "drop them")
    return parse_template(text)


def parse_location(text: str) -> Template:
    """The template of a redirect's target. Raises BadValue."""
    if not text:
        raise BadValue("a redirect needs a target", '"https://$host$uri"')
    _only_uri(text)
    return parse_template(text)


def parse_rewrite(text: str) -> Template:
    """The template of the path that a backend sees, and a query before that of the client.

    Raises BadValue.
    """
    _only_uri(text)
    if "#" in text:
        raise BadValue(f'"{text}" has a fragment, which servers never see', "drop it")
    pieces = parse_template(text)
    first = pieces[0] if pieces else None
    if first is None or not (first.part == "path" or first.text.startswith("/")):
        raise BadValue(f'"{text}" would not begin with a slash', f'"/{text}"')
    if any(piece.part in ("uri", "query") for piece in pieces):
        raise BadValue("the client's query is sent on anyway", "$path instead of $uri")
    return pieces


def _named(name: str) -> Segment:
    kind, dot, rest = name.partition(".")
    if dot and kind == "header":
        return Segment("header", parse_token(rest).lower())
    if dot and kind == "cookie":
        return Segment("cookie", parse_cookie_name(rest))
    if name.isascii() and name.isdecimal() and len(name) == 1:
        return Segment("capture", number=int(name))
    if name in NAMES:
        return Segment(name)     # type: ignore[arg-type]  # mypy does not narrow str by "in"
    raise BadValue(f'nothing is called "${name}"', _meant(name))


def _meant(name: str) -> str:
    if name in _ALSO_KNOWN_AS:
        return f"did you mean {_ALSO_KNOWN_AS[name]}?"
    for prefix, kind in (("http_", "header"), ("header_", "header"), ("cookie_", "cookie")):
        if name.startswith(prefix):
            rest = name.removeprefix(prefix).replace("_", "-" if kind == "header" else "_")
            return f"did you mean ${{{kind}.{rest}}}?"
    close = difflib.get_close_matches(name, NAMES, 1)
    if close:
        return f"did you mean ${close[0]}?"
    return 'one of $' + ", $".join(NAMES) + ', $1, ${header.NAME}, ${cookie.NAME}; "$$" is a dollar'


def _only_uri(text: str) -> None:
    if bad := next((char for char in text if not "!" <= char <= "~" or char in '"<>\\^`'), ""):
        raise BadValue(f"{bad!r} cannot stand in a URI", "percent-encode it, such as %20")
