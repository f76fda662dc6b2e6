"""Locust users that are customers of the shop.

Each request is told to Locust under the name of what it is for (``front``, ``buy``, ...). A failure
goes to Locust and, with its moment and the instance, to the file that the run judges.

``--host`` is where lbcore listens, such as 127.0.0.1:8080.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from typing import Any, ClassVar

from locust import User, events, task
from locust.env import Environment
from websocket import WebSocket, WebSocketException, create_connection

from loadtests.shop import stock

from ..conversation import address
from ..records import Failure
from ..report import FAILURE, add_option, attach, listen
from ..wire import Life, WrongAnswer
from .browser import FAILS_WITH, Browser, Page, Stranger, Unexpected, life
from .catalog import Customers

NOISE = random.Random(2).randbytes(1024 * 1024)
UPLOADS = (16 * 1024, 100_000, 512 * 1024)
ABUSER = "198.51.100.66"        # all abusers come from one address
PEOPLE = 2**16
SALES = 4                       # that somebody waits for

listen(events.init_command_line_parser, add_option)
listen(events.init, attach)


class ShopUser(User):
    """What all of them have in common. Subclasses name their ``behaviour``."""

    abstract = True
    behaviour: ClassVar[Customers]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "behaviour" in vars(cls):
            cls.weight = cls.behaviour.weight

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        number = random.randrange(PEOPLE)
        self.name = f"customer-{number}"
        self.browser = Browser(
            address((self.host or "").removeprefix("http://")), self.source(number))
        self.home: Life | None = None       # the instance that knows him
        self._due = 0.0                     # when the task that runs should have begun

    def source(self, number: int) -> str:
        """The address that he comes from."""
        return f"10.1.{number >> 8}.{number & 255}"

    def on_start(self) -> None:
        """Spreads the customers over one period; otherwise all would come in the same moment."""
        time.sleep(random.random() / self.behaviour.per_second)
        self._due = time.monotonic()

    def wait_time(self) -> float:
        """Seconds to the next task, which is due one period after the last one was."""
        now = time.monotonic()
        self._due = max(now, self._due + 1 / self.behaviour.per_second)
        return self._due - now

    def on_stop(self) -> None:
        """Leaves without a word."""
        self.browser.close()

    def timed(self, request: str, work: Callable[[], int]) -> bool:
        """Does ``work``, which returns bytes, and tells Locust; whether it succeeded."""
        began, error, size = time.monotonic(), None, 0
        who = self.home
        try:
            size = work()
        except (*FAILS_WITH, WebSocketException) as broken:
            error = broken
            if not isinstance(broken, Stranger):
                who = self.browser.who
            elif self.home is not None:
                self.home = None            # he has to log in again, if that is what it takes
        self.tell(request, began, size, error, who)
        return error is None

    def tell(
        self, request: str, began: float, size: int, error: Exception | None = None,
        who: Life | None = None,
    ) -> None:
        """Tells Locust of a request; of a failed one also the run."""
        ended = time.monotonic()
        event: dict[str, Any] = {
            "request_type": "http", "name": request, "response_time": (ended - began) * 1000,
            "response_length": size, "exception": None, "context": {},
        }
        if error is not None:
            told = f"{type(error).__name__}: {error}"
            event["exception"] = f"{who or 'no instance'}: {told}"
            event["context"] = {FAILURE: Failure(request, began, ended, told, who)}
        self.environment.events.request.fire(**event)

    def page(self, path: str, holds: str) -> int:
        """A page that must hold some text; its bytes."""
        page = self.browser.ask("GET", path)
        if holds.encode() not in page.body:
            raise WrongAnswer(f"{path} without {holds!r}: {page.body[:100]!r}")
        self.at_home(page)
        return len(page.body)

    def at_home(self, page: Page) -> None:
        """Raises Stranger when another instance answered than the one he logged in at."""
        if self.home is not None and page.who != self.home:
            raise Stranger(f"answered by {page.who}, logged in at {self.home}")

    def browse(self) -> bool:
        """An article, one of all."""
        number = random.randint(1, stock.ARTICLES)
        return self.timed("article", lambda: self.page(
            f"/article/{number}", stock.article(number).cost))

    def front(self) -> bool:
        """The first page."""
        return self.timed("front", lambda: self.page("/", "The shop"))

    def form(self) -> bool:
        """The form of the login, which brings Django's token."""
        return self.timed("form", lambda: self.page("/login", "csrfmiddlewaretoken"))


class Shopping(ShopUser):
    """Logs in once, and then looks, buys, and finds in his basket what he has put there."""

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.bought: list[int] = []

    @task
    def shop(self) -> None:
        """One visit."""
        self.front()
        for _ in range(2):
            self.browse()
        if self.home is None and not (self.form() and self.timed("login", self._login)):
            return
        if self.timed("buy", self._buy):
            self.timed("basket", self._look)

    def _login(self) -> int:
        page = self.browser.post("/login", f"name={self.name}".encode(), expect=(302,))
        self.home, self.bought = page.who, []
        return 0

    def _buy(self) -> int:
        number = random.randint(1, stock.ARTICLES)
        page = self._known(self.browser.post(
            "/basket", f"article={number}".encode(), expect=(200, 302)))
        self.bought = [*self.bought, number][-10:]
        return self._check(page)

    def _look(self) -> int:
        return self._check(self._known(self.browser.ask("GET", "/basket", expect=(200, 302))))

    def _known(self, page: Page) -> Page:
        self.at_home(page)
        if page.status == 302:
            raise Stranger(f"sent to the login by {page.who}, logged in at {self.home}")
        return page

    def _check(self, page: Page) -> int:
        wanted = {"name": self.name, "basket": self.bought}
        if page.json() != wanted:
            raise WrongAnswer(f"{page.json()} instead of {wanted}")
        return len(page.body)


class Visiting(ShopUser):
    """Comes for the first time each time: no cookies, a new connection."""

    abstract = True

    @task
    def visit(self) -> None:
        """One visit."""
        self.browser.close()
        self.browser.cookies.clear()
        if self.front():
            self.browse()


class Moving(ShopUser):
    """Uploads and downloads pictures."""

    abstract = True

    @task
    def move(self) -> None:
        """One of each."""
        if "csrftoken" not in self.browser.cookies and not self.form():
            return
        self.timed("upload", self._upload)
        self.timed("download", self._download)

    def _upload(self) -> int:
        size = random.choice(UPLOADS)
        start = random.randrange(len(NOISE) - size)
        picture = NOISE[start:start + size]
        said = self.browser.post("/picture", picture, kind="image/png").json()
        if said != {"bytes": size, "sha256": hashlib.sha256(picture).hexdigest()}:
            raise WrongAnswer(f"{said} of {size} bytes")
        return size

    def _download(self) -> int:
        number = random.randint(1, 12)
        page = self.browser.ask("GET", f"/picture/{number}")
        if page.body != stock.picture(number):
            raise WrongAnswer(f"another picture than no. {number}: {len(page.body)} bytes")
        return len(page.body)


class Waiting(ShopUser):
    """Waits for news."""

    abstract = True

    @task
    def wait_for_news(self) -> None:
        """One long poll."""
        self.timed("news", self._poll)

    def _poll(self) -> int:
        page = self.browser.ask("GET", f"/news?more={SALES}", expect=(200, 204))
        if page.status == 200 and page.json()["number"] < SALES:
            raise WrongAnswer(f"news of {page.json()} after {SALES} sales")
        return len(page.body)


class Talking(ShopUser):
    """Is in the chat, in a room of his own, and hears himself."""

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._chat: WebSocket | None = None
        self._said = 0

    @task
    def talk(self) -> None:
        """Two messages; enters first if he is not there."""
        if self._chat is None and not self.timed("chat", self._enter):
            return
        for _ in range(2):
            if not self.timed("message", self._say):
                self._leave()
                return

    def on_stop(self) -> None:
        """See :meth:`ShopUser.on_stop`."""
        self._leave()
        super().on_stop()

    def _enter(self) -> int:
        host, port = self.browser.address
        self.browser.who = None
        self._chat = create_connection(
            f"ws://{host}:{port}/chat/{self.name}-{id(self)}", timeout=15,
            header=self.browser.headers())
        try:
            self.browser.who = life(str(self._chat.recv()))
        except BaseException:
            self._leave()
            raise
        return 0

    def _say(self) -> int:
        assert self._chat is not None
        self._said += 1
        text = f"{self.name} says {self._said} " + "x" * random.randint(0, 2000)
        self._chat.send(text)
        heard = self._chat.recv()
        if heard != text:
            raise WrongAnswer(f"said {text[:50]!r}, heard {heard[:50]!r}")
        return len(text)

    def _leave(self) -> None:
        chat, self._chat = self._chat, None
        if chat is not None:
            chat.shutdown()  # type: ignore[no-untyped-call]


class Searching(ShopUser):
    """Searches now and then, from an address of his own."""

    abstract = True

    @task
    def search(self) -> None:
        """One search."""
        self.timed("search", lambda: self.page("/search?q=lamp", "articles"))


class Abusing(ShopUser):
    """Searches as fast as he can, from the same address as the other abusers.

    What is let through is told as ``admitted``, what is not as ``refused``: neither is a failure.
    """

    abstract = True

    def source(self, number: int) -> str:
        """See :meth:`ShopUser.source`."""
        return ABUSER

    @task
    def search(self) -> None:
        """One search."""
        began = time.monotonic()
        try:
            page = self.browser.ask("GET", "/search?q=lamp", expect=(200, 429))
            if page.status == 429 and not (page.headers.get("Retry-After") or "").isdigit():
                raise Unexpected("429 without Retry-After")
        except FAILS_WITH as error:
            self.tell("admitted", began, 0, error, self.browser.who)
            return
        self.tell("refused" if page.status == 429 else "admitted", began, len(page.body))
