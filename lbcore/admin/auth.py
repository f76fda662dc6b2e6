"""Who is answered: tokens, and requests that some web page made a browser send.

A page can make its visitor's browser send requests to 127.0.0.1. They carry an Origin or
Sec-Fetch-Site of elsewhere, or, after DNS rebinding, a Host that is not ours. The dashboard is a
page of this very address, and is told from others by the same fields.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping

from lbcore.admin.contract import ControlError

CHALLENGE = 'Bearer realm="lbcore"'
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/]*)(?::([0-9]{1,5}))?")
_HINT = ("send the token of [admin] token_file: `Authorization: Bearer TOKEN`; a unix socket "
         "needs none")


class Guard:
    """The rules of one admin address.

    ``token``: what must be shown; empty: nothing. ``hosts``: names of ours in Host, besides IP
    addresses and localhost.
    """

    def __init__(self, token: str = "", hosts: Iterable[str] = ()) -> None:
        self._token = token.encode()
        self._hosts = frozenset(_plain(host) for host in hosts)

    @property
    def needs_token(self) -> bool:
        """Whether a token must be shown."""
        return bool(self._token)

    def same_token(self, token: str) -> bool:
        """Whether this is the token that must be shown."""
        return hmac.compare_digest(token.encode(), self._token)

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Whether a request shows the token, or needs none. Takes as long for any wrong one."""
        if not self._token:
            return True
        scheme, _, shown = headers.get("Authorization", "").partition(" ")
        same = hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), self._token)
        return same and scheme.lower() == "bearer"

    def check_token(self, headers: Mapping[str, str]) -> None:
        """Raises ControlError, 401, for a request that does not show the token."""
        if not self.knows(headers):
            what = "the token is wrong" if "Authorization" in headers else "a token is needed"
            raise ControlError(401, what, _HINT)

    def check_source(self, headers: Mapping[str, str], *, page: bool = False) -> None:
        """Raises ControlError, 403, for what a web page of elsewhere caused.

        ``page``: a page is asked for, so following a link from elsewhere is welcome.
        """
        host = headers.get("Host", "")
        name = self._own_name(host)
        link = page and headers.get("Sec-Fetch-Mode") == "navigate" and (
            headers.get("Sec-Fetch-Dest") == "document") and "Origin" not in headers
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not link:
            raise ControlError(403, "requests from other web pages are not answered here")
        origin = headers.get("Origin")
        if origin is not None and not self._same(origin, host, name):
            raise ControlError(403, "requests from other web pages are not answered here")

    def _own_name(self, host: str) -> str:
        found = _HOST.fullmatch(host)
        name = _plain(found[1]) if found else ""
        if host and not (name == "localhost" or name in self._hosts or _is_address(name)):
            raise ControlError(403, f"the host name {host[:80]!r} is not answered here",
                               "use the IP address of the admin address or localhost, or put the "
                               "name into [admin] hosts")
        return name

    def _same(self, origin: str, host: str, name: str) -> bool:
        """Whether an Origin is the address that is asked.

        A name of [admin] hosts may also be that of a proxy of ours that ends TLS.
        """
        schemes = ("http", "https") if name in self._hosts else ("http",)
        return bool(host) and origin.lower() in {f"{scheme}://{host.lower()}" for scheme in schemes}


def _plain(host: str) -> str:
    return host.lower().removesuffix(".").strip("[]")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
