"""What tests of the admin address share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import ClientResponse

from lbcore.admin.picture import Answer

PATIENCE = 20.0
Message = dict[str, str]


async def until(what: Callable[[], object], patience: float = PATIENCE) -> None:
    """Returns once it is true. For state that announces itself nowhere."""
    async with asyncio.timeout(patience):
        while True:
            if what():
                return
            await asyncio.sleep(0.01)


def undocumented(model: Any, said: Any, where: str = "") -> list[str]:
    """Keys of an answer that its model does not know."""
    if isinstance(model, Answer) and model.model_config.get("extra") != "allow":
        found = [f"{where}.{key}" for key in said if key not in type(model).model_fields]
        return found + [one for key in type(model).model_fields if key in said
                        for one in undocumented(getattr(model, key), said[key], f"{where}.{key}")]
    if isinstance(model, list):
        return [one for part, text in zip(model, said, strict=True)
                for one in undocumented(part, text, where)]
    if isinstance(model, dict):
        return [one for key in model for one in undocumented(model[key], said[key], where)]
    return []


async def messages(answer: ClientResponse) -> AsyncIterator[Message]:
    """The messages of a stream, as the specification reads them."""
    said: Message = {}
    while line := (await answer.content.readline()).decode():
        if line == "\n":
            if said:
                yield said
            said = {}
        else:
            field, _, value = line.rstrip("\n").partition(":")
            said[field] = said.get(field, "") + value.removeprefix(" ")


async def next_of(kind: str, found: AsyncIterator[Message]) -> Message:
    """The next message of a kind."""
    async with asyncio.timeout(PATIENCE):
        async for message in found:
            if message.get("event") == kind:
                return message
    raise AssertionError(f"the stream ended before a message {kind!r}")
