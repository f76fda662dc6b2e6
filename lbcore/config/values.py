"""The small languages inside strings: durations, addresses, file modes, status ranges, networks.

Every function here is pure: text in, value out, or ``BadValue`` with a hint.
"""

from __future__ import annotations

import ipaddress
import re
from fractions import Fraction
from functools import lru_cache

from lbcore.config.plan import Address

MAX_DURATION_MS = 2**31 - 1      # workers keep durations in 32 bits: a little over 24 days
MAX_UNIX_PATH = 107              # sun_path holds 108 bytes with its closing NUL, see unix(7)

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]*)")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class BadValue(ValueError):
    """A string that does not mean what its key needs."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def parse_duration(value: object, least_ms: int = 0) -> int:
    """Milliseconds in a duration such as ``"500ms"``, ``"1.5s"`` or ``"5m"``.

    ``least_ms`` is the shortest one allowed; 0 also allows ``"0"``.
    """
    if isinstance(value, bool) or not isinstance(value, str):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        hint = f'say the unit: "{value}s" or "{value}ms"' if number else 'for example "2s"'
        raise BadValue('a duration is a string with a unit, such as "2s"', hint)
    found = _DURATION.fullmatch(value)
    if found is None:
        raise BadValue(f'"{value}" is not a duration', 'for example "500ms", "2s", "5m" or "1h"')
    amount, unit = Fraction(found[1]), found[2]
    if not unit:
        if value != "0":
            raise BadValue(f'"{value}" has no unit', f'"{found[1]}s" or "{found[1]}ms"')
        unit = "s"
    if unit not in _UNIT_MS:
        raise BadValue(f'"{unit}" is not a unit of time', "units are ms, s, m, h and d")
    ms = amount * _UNIT_MS[unit]
    if ms.denominator != 1:
        raise BadValue(
            f'"{value}" is not a whole number of milliseconds', f'"{max(1, round(ms))}ms"'
        )
    if ms > MAX_DURATION_MS:
        raise BadValue(f'"{value}" is too long', 'the longest duration is "24d"')
    if ms < least_ms:
        what = "must be longer than 0" if not ms else "is too short"
        raise BadValue(f'"{value}" {what}', f'at least "{format_duration(least_ms)}"')
    return int(ms)


def format_duration(ms: int) -> str:
    """The shortest way to write so many milliseconds: 120000 is ``"2m"``."""
    if ms == 0:
        return "0"
    for unit in ("d", "h", "m", "s"):
        if ms % _UNIT_MS[unit] == 0:
            return f"{ms // _UNIT_MS[unit]}{unit}"
    return f"{ms}ms"


def parse_bind(text: str) -> Address:
    """An address to listen on: ``IP:PORT``, ``[IPv6]:PORT`` or ``unix:/PATH``."""
    if text.startswith("unix:"):
        return _unix(text)
    host, port = _split(text)
    if host in ("", "*"):
        raise BadValue(
            f'"{text}" does not say on which address',
            f'"0.0.0.0:{port}" is every IPv4 address, "[::]:{port}" every IPv6 one',
        )
    ip = _ip(host)
    if ip is None:
        hint = (
            f'"127.0.0.1:{port}" or "[::1]:{port}"'
            if host.lower() == "localhost"
            else f'"0.0.0.0:{port}" is every IPv4 address of this machine'
        )
        raise BadValue(f'"{host}" is a name, and lbcore listens on numeric addresses only', hint)
    return Address(host=ip, port=port)


def parse_listen(text: str) -> Address:
    """Where a listener listens: as ``parse_bind``, and ``fd:NAME`` for a socket that is passed."""
    if not text.startswith("fd:"):
        return parse_bind(text)
    name = text.removeprefix("fd:")
    # sd_listen_fds_with_names(3)
    if not 0 < len(name) <= 255 or not name.isascii() or not name.isprintable() or ":" in name:
        raise BadValue(f'"{text}" names no socket', 'its FileDescriptorName=, such as "fd:web"')
    return Address(name=name)


# A change at run time looks at all backends again, each several times, and knows nearly all.
@lru_cache(maxsize=16384)
def parse_backend(text: str) -> Address:
    """An address to connect to: as ``parse_bind``, and ``NAME:PORT`` too."""
    if text.startswith("unix:"):
        return _unix(text)
    host, port = _split(text)
    ip = _ip(host)
    if ip is not None:
        if ipaddress.ip_address(ip).is_unspecified:
            local = "127.0.0.1" if "." in ip else "[::1]"
            raise BadValue(f'"{host}" is no address to connect to', f'"{local}:{port}"')
        return Address(host=ip, port=port)
    labels = host.removesuffix(".").split(".")
    if labels[-1].isdecimal():
        raise BadValue(f'"{host}" is not an IPv4 address', "four numbers from 0 to 255")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadValue(f'"{host}" is not a host name', 'for example "app.internal:8000"')
    return Address(host=host, port=port)


def parse_source(text: str) -> Address:
    """A local address for upstream connections; its port is 0, the kernel picks one for each."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    ip = _ip(bare)
    if ip is None:
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if port.isdecimal() and _ip(host):
            raise BadValue("a source has no port: each connection needs another", f'"{host}"')
        raise BadValue(f'"{text}" is not an IP address', 'for example "10.0.0.5" or "fd00::5"')
    if ipaddress.ip_address(ip).is_unspecified:
        raise BadValue(f'"{text}" is no address of its own', "leave source out: the system picks")
    return Address(host=ip, port=0)


def parse_network(text: str) -> str:
    """A CIDR network in its canonical form; a bare address is a network of one."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        wider = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadValue(
            f'"{text}" is not a network', 'for example "10.0.0.0/8", "fd00::/8" or "10.0.0.7"'
        ) from None
    raise BadValue(f'"{text}" has bits set after its prefix', f'the network is "{wider}"')


def parse_status(value: object) -> tuple[int, int]:
    """An inclusive range of HTTP status codes from ``204`` or ``"200-399"``."""
    if isinstance(value, int) and not isinstance(value, bool):
        low = high = value
    elif isinstance(value, str) and (
        found := re.fullmatch(r"([0-9]{3})(?:\s*-\s*([0-9]{3}))?", value.strip())
    ):
        low, high = int(found[1]), int(found[2] or found[1])
    else:
        raise BadValue(f"{value!r} is not a status", 'a number or a range, such as "200-399"')
    if not 100 <= low <= high <= 599:
        raise BadValue(f"{value!r} is no range of statuses", "from 100 to 599, low first")
    return low, high


def _unix(text: str) -> Address:
    path = text.removeprefix("unix:")
    if "\0" in path:
        raise BadValue("a path cannot contain a NUL byte")
    if not path.startswith("/"):
        hint = f'"unix:/run/{path.lstrip("@./") or "lb.sock"}"'
        raise BadValue(f'"{text}" is not an absolute path', hint)
    size = len(path.encode())
    if size > MAX_UNIX_PATH:
        raise BadValue(
            f"this path is {size} bytes long and a unix socket can have {MAX_UNIX_PATH}",
            "put the socket into a directory with a shorter name, such as /run/lbcore",
        )
    if path.endswith("/"):
        raise BadValue(f'"{text}" is a directory', f'"{text}lb.sock"')
    return Address(path=path)


def _split(text: str) -> tuple[str, int]:
    """Host without brackets and port of ``HOST:PORT``."""
    if scheme := _SCHEME.match(text):
        rest = text[scheme.end():].partition("/")[0]
        raise BadValue("an address is not a URL", f'"{rest}" without "{scheme[0]}"')
    if text != text.strip() or not text:
        raise BadValue(f'"{text}" is not an address', 'for example "10.0.0.1:8000"')
    if text.startswith("/"):
        raise BadValue(f'"{text}" has no port', f'for a unix socket write "unix:{text}"')
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed:
            raise BadValue(f'"{text}" lacks a closing bracket', '"[IPv6]:PORT"')
        if _ip(host) is None or ":" not in host:
            raise BadValue(f'"{host}" is not an IPv6 address', 'for example "[::1]:8000"')
        if not rest.startswith(":"):
            raise BadValue(f'"{text}" has no port', f'"[{host}]:8000"')
        return host, _port(text, rest[1:])
    if text.count(":") > 1:
        head, _, tail = text.rpartition(":")
        if _ip(head) and tail.isdecimal() and 0 < int(tail) < 65536:
            hint = f'"[{head}]:{tail}"'
        elif _ip(text):
            hint = f'"[{text}]:8000"'
        else:
            hint = '"[IPv6]:PORT"'
        raise BadValue(f'"{text}": an IPv6 address stands in brackets before its port', hint)
    host, colon, port = text.partition(":")
    if not colon:
        if host.isdecimal():
            raise BadValue(f'"{text}" has no address', f'"127.0.0.1:{host}"')
        raise BadValue(f'"{text}" has no port', f'"{host}:8000"')
    return host, _port(text, port)


def _port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise BadValue(f'"{text}" has no valid port', "ports go from 1 to 65535")
    return int(port)


def _ip(host: str) -> str | None:
    """The canonical form of a numeric address, or None for anything else."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id:
        raise BadValue(f'"{host}" has a zone', "use an address without a zone such as %eth0")
    return str(ip)
