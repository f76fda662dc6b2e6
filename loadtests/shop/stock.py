"""What the shop sells. Everything is made from its number, so that customers can check it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

ARTICLES = 200
PICTURE_SIZES = (64 * 1024, 256 * 1024, 1024 * 1024)
_ADJECTIVES = ("blue", "solid", "quiet", "late", "northern", "second-hand", "round", "heavy")
_THINGS = ("teapot", "lamp", "bicycle", "notebook", "kettle", "chair", "clock", "umbrella")


@dataclass(frozen=True)
class Article:
    """One article. ``price`` is in cents."""

    number: int
    name: str
    price: int

    @property
    def cost(self) -> str:
        """The price as people read it."""
        return f"{self.price // 100}.{self.price % 100:02}"


@lru_cache(maxsize=ARTICLES)
def article(number: int) -> Article:
    """The article of this number. Raises KeyError when there is none."""
    if not 1 <= number <= ARTICLES:
        raise KeyError(number)
    name = f"{_ADJECTIVES[number % 8]} {_THINGS[number // 8 % 8]} no. {number}"
    return Article(number, name, 199 + number * 731 % 9000)


@lru_cache(maxsize=len(PICTURE_SIZES) * 4)
def picture(number: int) -> bytes:
    """The picture of an article: noise that cannot be compressed, of one of a few sizes."""
    return random.Random(number).randbytes(PICTURE_SIZES[number % len(PICTURE_SIZES)])
