"""What clients and echo backends say to each other: frames, and the check of an answer.

A question is a head (length of the payload, number) and a payload. Its answer is a head that
repeats both and adds who answers (backend and life), and the same payload. A backend begins a new
life each time it is started, so that an answer tells before or after which death it was given.

Numbers are random where a connection begins and rise by one: bytes that reached the wrong
connection, or the right one twice, cannot pass for an answer.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

QUESTION = struct.Struct("!IQ")     # bytes of payload, number
ANSWER = struct.Struct("!IQHH")     # bytes of payload, number, backend, life
MAX_PAYLOAD = 4 * 1024 * 1024
_NOISE = random.Random(1).randbytes(2 * MAX_PAYLOAD)


@dataclass(frozen=True, order=True)
class Life:
    """A backend between one start and its end. Both count from 1."""

    backend: int
    life: int

    def __str__(self) -> str:
        return f"b{self.backend}#{self.life}"


class WrongAnswer(Exception):
    """Bytes that no backend sends as the answer to what was asked."""


def payload(size: int, number: int) -> bytes:
    """``size`` bytes that cannot be compressed, different from one number to the next."""
    if not 0 <= size <= MAX_PAYLOAD:
        raise ValueError(f"a payload has 0 to {MAX_PAYLOAD} bytes, not {size}")
    start = number * 7919 % MAX_PAYLOAD
    return _NOISE[start:start + size]


def question(size: int, number: int) -> bytes:
    """The whole question, head and payload."""
    return QUESTION.pack(size, number) + payload(size, number)


def check_head(head: bytes | bytearray, size: int, number: int) -> Life:
    """Who gave the answer that begins with ``head``. Raises WrongAnswer."""
    length, answered, backend, life = ANSWER.unpack(head)
    if length != size or answered != number:
        raise WrongAnswer(
            f"asked for {size} bytes of number {number:x}, answered {length} of {answered:x}"
        )
    return Life(backend, life)


def check_payload(got: bytes | bytearray, size: int, number: int) -> None:
    """Raises WrongAnswer, naming the first byte that differs."""
    wanted = payload(size, number)
    if got == wanted:
        return
    at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b),
              min(len(got), size))
    raise WrongAnswer(f"{len(got)} of {size} bytes, wrong from byte {at} on")
