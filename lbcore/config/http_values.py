"""The small languages inside strings of http listeners: sizes, hosts, paths, rates, keys, hashes.

As in ``values.py``, every function is pure: text in, value out, or ``BadValue`` with a hint.
"""

from __future__ import annotations

import re
from fractions import Fraction
from urllib.parse import quote, unquote_to_bytes

from lbcore._expressions import check_pattern
from lbcore.config.plan import HashOn, RateKey, RatePlan
from lbcore.config.values import BadValue

MAX_SIZE = 2**62
MAX_BURST = 1_000_000
MAX_PER_SECOND = 100_000         # a request costs whole microseconds: above, rounding would show
MAX_INTERVAL_US = 2**32 - 1
MAX_STICKY_NAME = 64             # bytes; workers write name and path of a cookie
MAX_COOKIE_PATH = 255            # into a buffer of fixed size
MAX_USER = 64                    # bytes of a user's name that workers look at

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
          "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_RATE = re.compile(r"([0-9]+)\s*/\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_IN_PATHS = "!\"$&'()*+,/:;<=>@[\\]^`{|}~"   # in a route's path as they are, beside unreserved ones
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
# How hashes of crypt(5) begin, and how long the last part of each is.
_CRYPT = tuple((re.compile(start), size) for start, size in (
    (r"\$(y|gy|7|5)\$", 43), (r"\$2[abxy]?\$", 53), (r"\$6\$", 86), (r"\$1\$", 22),
    (r"\$sha1\$", 28), (r"\$md5[^$]*\$", 22)))
# Costs that would take a worker, which does nothing else meanwhile, several seconds.
_BCRYPT_COST = re.compile(r"\$2[abxy]?\$([0-9]+)\$")
_SHA_ROUNDS = re.compile(r"\$[56]\$rounds=([0-9]+)\$")
MAX_BCRYPT_COST = 15
MAX_SHA_ROUNDS = 10_000_000
_DIGEST = re.compile(r"\$[!-~]*\$([./0-9A-Za-z]*)")
_DES = re.compile(r"[./0-9A-Za-z]{13}|_[./0-9A-Za-z]{19}")


def parse_size(value: object, least: int = 0, most: int = MAX_SIZE) -> int:
    """Bytes in a size such as ``"512B"``, ``"64KiB"`` or ``"1.5MB"``."""
    if not isinstance(value, str):
        number = isinstance(value, int) and not isinstance(value, bool)
        hint = f'say the unit: "{value}B" or "{value}KiB"' if number else 'for example "64KiB"'
        raise BadValue('a size is a string with a unit, such as "64KiB"', hint)
    found = _SIZE.fullmatch(value)
    if found is None:
        raise BadValue(f'"{value}" is not a size', 'for example "64KiB", "100MiB" or "1GiB"')
    amount, unit = Fraction(found[1]), found[2]
    if not unit:
        if value != "0":
            raise BadValue(f'"{value}" has no unit', f'"{found[1]}B" or "{found[1]}KiB"')
        unit = "B"
    if unit not in _UNITS:
        like = next((one for one in _UNITS if one[0].lower() == unit[0].lower()), "")
        raise BadValue(
            f'"{unit}" is not a unit of size',
            f'"{found[1]}{like}"' if like else "units are B, KiB, MiB, GiB, and kB, MB, GB",
        )
    size = amount * _UNITS[unit]
    if size.denominator != 1:
        raise BadValue(f'"{value}" is not a whole number of bytes', f'"{round(size)}B"')
    if size < least:
        raise BadValue(f'"{value}" is too small', f'at least "{format_size(least)}"')
    if size > most:
        raise BadValue(f'"{value}" is too large', f'at most "{format_size(most)}"')
    return int(size)


def format_size(size: int) -> str:
    """The shortest way to write so many bytes: 65536 is ``"64KiB"``."""
    if size == 0:
        return "0"
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return f"{size}B"


def parse_host(text: str) -> str:
    """What a route compares with the host of a request: in lower case, ``*.`` for a wildcard."""
    if "://" in text or "/" in text:
        bare = text.partition("://")[2] or text
        raise BadValue(f'"{text}" is not a host', f'"{bare.partition("/")[0]}"; a path is a key')
    host = text.lower().removesuffix(".")
    wildcard = host.startswith("*.")
    name = host[2:] if wildcard else host
    if name.startswith("["):
        raise BadValue("a route cannot ask for an IPv6 address", "leave host out")
    bare, colon, port = name.partition(":")
    if colon and port.isdecimal():
        raise BadValue("a host has no port here", f'"{host[: -len(port) - 1]}"')
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            raise BadValue(f'"{text}" is not a host name', "its form in ASCII: xn--...") from None
    if "*" in name:
        rest = name.rpartition("*")[2].lstrip(".") or "example.com"
        raise BadValue(
            f'"{text}": a wildcard is a whole first label', f'"*.{rest}", which takes x.{rest} too'
        )
    if not name or len(name) > 253 or not all(map(_LABEL.fullmatch, name.split("."))):
        raise BadValue(f'"{text}" is not a host name', '"example.com" or "*.example.com"')
    return f"*.{name}" if wildcard else name


def parse_path(text: str) -> str:
    """A path in the one form of all that workers take for the same: no more escapes than it needs,
    and no encoded slash."""
    if not text.startswith("/"):
        raise BadValue(f'"{text}" is not a path', f'it begins with a slash: "/{text.lstrip("*/")}"')
    for mark, meaning in (("?", "a query"), ("#", "a fragment")):
        if mark in text:
            hint = "query = { ... } looks at queries" if mark == "?" else "servers never see it"
            raise BadValue(f'"{text}" has {meaning}, and this is compared with the path', hint)
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise BadValue("a path cannot contain control characters")
    for piece in text.split("%")[1:]:
        code = piece[:2]
        if not re.fullmatch(r"[0-9A-Fa-f]{2}", code) or code == "00":
            raise BadValue(f'"%{code}" is not an escape', '"%25" stands for a percent sign')
    # Workers compare what escapes mean, so one path has one form: its length decides who is first.
    path = quote(unquote_to_bytes(text), safe=_IN_PATHS)
    segments = path.split("/")[1:]
    if "" in segments[:-1]:
        raise BadValue(
            f'"{text}" has empty segments, and workers count slashes in a row as one',
            f'"{re.sub("/+", "/", path)}"',
        )
    if "." in segments or ".." in segments:
        raise BadValue(
            f'"{text}" matches nothing: workers resolve dot segments', "the path without them"
        )
    return path


def parse_token(text: str, what: str = "name of a header field") -> str:
    """A token (RFC 9110, section 5.6.2), such as the name of a header field, as it was written."""
    if not _TOKEN.fullmatch(text) or len(text) > 256:
        raise BadValue(f'"{text}" is not a {what}', "letters, digits and -")
    return text


def parse_method(text: str) -> str:
    """A request method."""
    parse_token(text, "request method")
    if text != text.upper():
        raise BadValue(f'"{text}" is no method: they are case-sensitive', f'"{text.upper()}"')
    return text


def parse_cookie_name(text: str) -> str:
    """The name of a cookie (RFC 6265, section 4.1.1)."""
    return parse_token(text, "name of a cookie")


def parse_sticky_name(text: str) -> str:
    """The name of a cookie that lbcore sets or learns from."""
    if len(parse_cookie_name(text)) > MAX_STICKY_NAME:
        raise BadValue(f'"{text}" is too long for a cookie\'s name',
                       f"at most {MAX_STICKY_NAME} bytes")
    return text


def parse_hash_on(text: str) -> tuple[HashOn, str]:
    """What consistent hashes: a kind, and for some the name of a header, cookie or parameter."""
    kind, colon, name = text.partition(":")
    if not colon and kind in ("source_ip", "path", "uri"):
        return kind, ""      # type: ignore[return-value]  # mypy does not narrow str by "in"
    if kind == "header" and name:
        return "header", parse_token(name).lower()
    if kind == "cookie" and name:
        return "cookie", parse_cookie_name(name)
    if kind == "query" and name:
        return "query", name
    hint = f'"{kind}:NAME"' if kind in ("header", "cookie", "query") else (
        "source_ip, path, uri, header:NAME, cookie:NAME or query:NAME")
    raise BadValue(f'"{text}" is nothing to hash on', hint)


def parse_rate_key(text: str) -> tuple[RateKey, str]:
    """Who shares a bucket: a kind, and for some the name of a header field or cookie."""
    kind, colon, name = text.partition(":")
    if not colon and kind in ("source", "route"):
        return kind, ""      # type: ignore[return-value]  # as above
    if kind == "header" and name:
        return "header", parse_token(name).lower()
    if kind == "cookie" and name:
        return "cookie", parse_cookie_name(name)
    hint = f'"{kind}:NAME"' if kind in ("header", "cookie") else (
        "source, route, header:NAME or cookie:NAME")
    raise BadValue(f'"{text}" is nothing to count requests by', hint)


def parse_rate(text: str) -> tuple[int, int]:
    """Requests, and microseconds for one of them, in a rate such as ``"100/s"`` or ``"20/m"``."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise BadValue(f'"{text}" is not a rate', 'for example "100/s", "20/m" or "1000/h"')
    requests, seconds = int(found[1]), _SECONDS[found[2]]
    if not requests:
        raise BadValue("a rate of 0 lets nobody in", "deny, or respond with a status, does that")
    if requests > MAX_PER_SECOND * seconds or requests > MAX_BURST:
        raise BadValue(f'"{text}" is more than can be counted', f'at most "{MAX_PER_SECOND}/s"')
    interval = seconds * 1_000_000 // requests
    if interval > MAX_INTERVAL_US:
        raise BadValue(f'"{text}" is less than can be counted', 'at least "1/h"')
    return requests, interval


def rate_plan(requests: str, burst: int | None, by: str) -> RatePlan:
    """A bucket for a rate; without a burst of its own it holds what comes in the rate's time."""
    count, interval = parse_rate(requests)
    kind, name = parse_rate_key(by)
    return RatePlan(interval, count if burst is None else burst, kind, name)


def parse_expression(text: str) -> str:
    """A regular expression that workers can compile (PCRE2)."""
    if (wrong := check_pattern(text)) is not None:
        raise BadValue(f'"{text}" is not a regular expression: {wrong}')
    return text


def parse_path_expression(text: str) -> str:
    """A regular expression for paths, which workers decode before they compare them."""
    if found := _ESCAPE.search(text):
        raise BadValue(
            f'"{text}" asks for {found[0]}, and paths are decoded before they are compared',
            f'the character itself, or "\\x{found[0][1:]}"; where paths have it encoded twice, '
            f'"[%]{found[0][1:]}"',
        )
    return parse_expression(text)


def parse_password_hash(text: str) -> str:
    """A password hash in a form that crypt(5) describes and the C library can verify."""
    how = "`htpasswd -nB NAME`, `mkpasswd` or `openssl passwd -6` make one that is"
    size = next((size for start, size in _CRYPT if start.match(text)), 0)
    digest = _DIGEST.fullmatch(text)
    if size and (digest is None or len(digest[1]) != size):
        raise BadValue("this hash is not whole, so no password would fit it",
                       f"copy all of it; what follows its last $ has {size} characters")
    for cost, most in ((_BCRYPT_COST, MAX_BCRYPT_COST), (_SHA_ROUNDS, MAX_SHA_ROUNDS)):
        if (found := cost.match(text)) and int(found[1]) > most:
            raise BadValue(f"this hash costs too much ({int(found[1])}): each password that "
                           "anybody tries would hold up a worker for seconds",
                           "the usual cost of the method: `htpasswd -nB NAME`")
    if size or _DES.fullmatch(text):
        return text
    if text.startswith("$apr1$"):
        raise BadValue("a hash of Apache's own (apr1) is none that crypt(5) knows", how)
    if text.startswith(("{SHA}", "{SSHA}")):
        raise BadValue("an SHA-1 hash in base64 is none that crypt(5) knows", how)
    raise BadValue("this is not a password hash of crypt(5)", how)


def is_weak_hash(text: str) -> bool:
    """Whether passwords can be guessed from a hash with little effort."""
    return not text.startswith(("$y$", "$gy$", "$7$", "$2", "$6$", "$5$"))


def parse_user(text: str) -> str:
    """A user's name of basic authentication (RFC 7617, section 2)."""
    if not text or ":" in text or any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise BadValue(f'"{text}" cannot be a user', "no colon, no control characters")
    if len(text.encode()) > MAX_USER:
        raise BadValue(f'"{text}" is too long for a user', f"at most {MAX_USER} bytes")
    return text
