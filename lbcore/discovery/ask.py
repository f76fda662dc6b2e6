"""Calling a source again and again, whatever kind of callable it is.

    def source(): return [...]                 called every ``interval``
    async def source(): return [...]           the same
    def source(): yield [...]                  each set counts from when it is given
    async def source(): yield [...]            the same

What it raises is said, not raised, and it is called again after a while that grows.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lbcore.discovery.answers import BadAnswer, Table, backends_of

LONGEST_PAUSE = 60.0         # seconds between two attempts, unless the interval is longer
FIRST_PAUSE = 0.5
_END = object()


@dataclass(frozen=True)
class Said:
    """What a source said: its backends, or why there are none."""

    backends: list[Table] | None
    error: str = ""


class _Failed(Exception):
    """The source raised something; this is it in words."""


async def ask(
    source: Callable[[], Any], interval: float, *, threads: bool = False,
    busy: Callable[[bool], None] = lambda _: None,
) -> AsyncGenerator[Said, None]:
    """Everything a source says, without end; nothing twice in a row but failures.

    ``threads``: functions that are not async are called beside the loop. ``busy`` is told when a
    function that is not a generator begins and ends.
    """
    last: list[Table] | None = None
    pause = 0.0
    while True:
        error = ""
        try:
            async for answer in _answers(source, threads, busy):
                backends = backends_of(answer)
                pause = 0.0
                if backends != last:
                    last = backends
                    yield Said(backends)
        except (BadAnswer, _Failed) as problem:
            error = str(problem)
        if error:
            last = None                  # who has heard of the error hears of its end
            yield Said(None, error)
            pause = min(max(LONGEST_PAUSE, interval), pause * 2 or FIRST_PAUSE)
        await asyncio.sleep(pause if error else interval)


async def _answers(
    source: Callable[[], Any], threads: bool, busy: Callable[[bool], None]
) -> AsyncIterator[Any]:
    """One answer of a function, or all of a generator. Raises _Failed."""
    busy(True)
    try:
        # What a coroutine or generator function does, it does later.
        later = inspect.iscoroutinefunction(source) or threads is False
        found = source() if later else await _beside(source)
        if inspect.isawaitable(found):
            found = await found
        if not hasattr(found, "__anext__") and not inspect.isgenerator(found):
            yield found
            return
    except (BadAnswer, GeneratorExit, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise _Failed(described(error)) from error
    finally:
        busy(False)
    try:
        if inspect.isgenerator(found):
            while (one := await _beside(lambda: next(found, _END))) is not _END:
                yield one
        else:
            async for one in found:
                yield one
    except (BadAnswer, GeneratorExit, asyncio.CancelledError):
        raise
    except BaseException as error:
        raise _Failed(described(error)) from error


async def _beside(work: Callable[[], Any]) -> Any:
    """What ``work`` returns or raises, while the loop goes on.

    In a thread that nobody waits for, unlike asyncio's own: one that hangs keeps no program from
    ending.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def tell(result: Any, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    def do() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:   # noqa: BLE001  (for whoever asked)
            # A future does not take this one.
            failure = RuntimeError("it ended") if isinstance(error, StopIteration) else error
        with suppress(RuntimeError):     # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=do, name="lbcore-source", daemon=True).start()
    return await answer


def described(error: BaseException) -> str:
    """An exception in a line, with where it came from."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if "/lbcore/discovery/" not in code.co_filename:
            place = f" ({code.co_filename}:{trace.tb_lineno} in {code.co_name})"
        trace = trace.tb_next
    text, kind = " ".join(str(error).split()), type(error).__name__
    return f"{kind}: {text[:300]}{place}" if text else f"{kind}{place}"
