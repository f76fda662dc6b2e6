"""A customer's browser: cookies, one kept connection, and no patience with broken answers.

Python's own HTTP client, which hides nothing: a connection that lbcore closes without having said
so is an error here, where a browser would quietly ask again. Inside Locust its sockets give way to
other customers while they wait.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from http.cookies import CookieError, SimpleCookie
from typing import Any

from loadtests.shop.instance import FIELD

from ..conversation import Address
from ..wire import Life, WrongAnswer

FAILS_WITH = (OSError, HTTPException, WrongAnswer)


class Unexpected(WrongAnswer):
    """An answer with another status than it should have."""


class Stranger(WrongAnswer):
    """The shop does not know somebody who has logged in, or another instance answers him."""


@dataclass(frozen=True)
class Page:
    """An answer, complete. ``who`` is the instance that gave it, None if lbcore itself did."""

    status: int
    headers: Message
    body: bytes
    who: Life | None

    def json(self) -> Any:
        """What it says. Raises WrongAnswer when that is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise WrongAnswer(f"no JSON: {self.body[:100]!r}") from None


def life(text: str | None) -> Life | None:
    """The instance of the field's value, such as 2.1. Raises WrongAnswer for other text."""
    if text is None:
        return None
    number, _, count = text.partition(".")
    if not (number.isdigit() and count.isdigit()):
        raise WrongAnswer(f"{FIELD}: {text}")
    return Life(int(number), int(count))


class Browser:
    """One customer's. ``source`` is the address that he says he comes from.

    ``who`` is the instance that gave the last answer. Methods raise what is in FAILS_WITH;
    ``seconds`` is how long each wait for the other side may take.
    """

    def __init__(self, address: Address, source: str, seconds: float = 15.0) -> None:
        self.address = address
        self.source = source
        self.cookies: dict[str, str] = {}
        self.who: Life | None = None
        self._seconds = seconds
        self._connection: HTTPConnection | None = None

    def headers(self) -> dict[str, str]:
        """What every request says: where it comes from and the cookies."""
        own = {"X-Forwarded-For": self.source}
        if self.cookies:
            own["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return own

    def ask(
        self, method: str, path: str, *, expect: tuple[int, ...] = (200,),
        body: bytes | None = None, headers: Mapping[str, str] | None = None,
    ) -> Page:
        """One request and its whole answer, whose status must be one of ``expect``."""
        self.who = None
        connection = self._connection
        if connection is None:
            connection = HTTPConnection(*self.address, timeout=self._seconds)
            self._connection = connection
        try:
            connection.request(method, path, body, {**self.headers(), **(headers or {})})
            answer = connection.getresponse()
            page = Page(answer.status, answer.headers, answer.read(),
                        life(answer.headers.get(FIELD)))
        except BaseException:       # also when the user is stopped in the middle of it
            self.close()
            raise
        if answer.will_close:
            self.close()
        self.who = page.who
        self._keep_cookies(page.headers)
        if page.status not in expect:
            raise Unexpected(f"{method} {path}: {page.status} {page.body[:100]!r}")
        if page.who is None and page.status < 400:
            raise WrongAnswer(f"{method} {path}: {page.status} of no instance")
        return page

    def post(
        self, path: str, body: bytes, *, expect: tuple[int, ...] = (200,),
        kind: str = "application/x-www-form-urlencoded",
    ) -> Page:
        """A POST that shows Django's token."""
        return self.ask("POST", path, expect=expect, body=body, headers={
            "Content-Type": kind, "X-CSRFToken": self.cookies.get("csrftoken", "")})

    def close(self) -> None:
        """Gives the connection up, whatever its state; the next request opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _keep_cookies(self, headers: Message) -> None:
        for line in headers.get_all("Set-Cookie", ()):
            try:
                cookies = SimpleCookie(line)
            except CookieError as error:
                raise WrongAnswer(f"Set-Cookie: {line}: {error}") from None
            for name, morsel in cookies.items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
