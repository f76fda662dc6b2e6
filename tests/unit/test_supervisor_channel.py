"""The control channel: answers find their questions, descriptors arrive, nothing blocks."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator

import pytest

from lbcore.supervisor.channel import Channel, ChannelClosed, Message, WorkerRefused


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


async def received(theirs: socket.socket) -> Message:
    data = await asyncio.get_running_loop().sock_recv(theirs, 65536)
    return dict(json.loads(data))


async def test_answers_find_their_questions_in_any_order(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    channel, theirs = Channel(ends[0]), ends[1]
    first = asyncio.create_task(channel.ask({"op": "plan", "version": 1}))
    second = asyncio.create_task(channel.ask({"op": "plan", "version": 2}))
    asked = [await received(theirs), await received(theirs)]
    for question in reversed(asked):
        theirs.send(json.dumps({"op": "applied", "id": question["id"],
                                "version": question["version"]}).encode())
    assert (await first)[0][0]["version"] == 1
    assert (await second)[0][0]["version"] == 2
    channel.close()


async def test_error_is_an_exception_with_the_workers_words(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    channel, theirs = Channel(ends[0]), ends[1]
    asking = asyncio.create_task(channel.ask({"op": "plan"}))
    question = await received(theirs)
    theirs.send(json.dumps({"op": "error", "id": question["id"], "error": "no room"}).encode())
    with pytest.raises(WorkerRefused, match="no room"):
        await asking
    channel.close()


async def test_answer_in_parts_comes_with_all_its_descriptors(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    channel, theirs = Channel(ends[0]), ends[1]
    asking = asyncio.create_task(channel.ask({"op": "adopt"}))
    question = await received(theirs)
    files = [os.memfd_create(name) for name in ("a", "b")]
    for fd, more in zip(files, (True, False), strict=True):
        said = {"op": "adopted", "id": question["id"], "more": more}
        socket.send_fds(theirs, [json.dumps(said).encode()], [fd])
    answers = await asking
    assert [os.fstat(fds[0]).st_ino for _, fds in answers] == [os.fstat(f).st_ino for f in files]
    for fd in [*files, *(fds[0] for _, fds in answers)]:
        os.close(fd)
    channel.close()


async def test_end_of_the_worker_ends_every_wait(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    closed = asyncio.Event()
    channel, theirs = Channel(ends[0], on_close=closed.set), ends[1]
    asking = asyncio.create_task(channel.ask({"op": "plan"}))
    await received(theirs)
    theirs.close()
    with pytest.raises(ChannelClosed):
        await asking
    await closed.wait()
    with pytest.raises(ChannelClosed):
        channel.send({"op": "stop"})


async def test_silence_is_a_timeout(ends: tuple[socket.socket, socket.socket]) -> None:
    channel = Channel(ends[0])
    with pytest.raises(TimeoutError):
        await channel.ask({"op": "plan"}, timeout=0.05)
    channel.close()


async def test_worker_that_does_not_read_blocks_nobody_and_misses_nothing(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    channel, theirs = Channel(ends[0]), ends[1]
    file = os.memfd_create("plan")
    for number in range(2000):
        channel.send({"op": "plan", "number": number, "text": "x" * 1000}, [file])
    os.close(file)      # the queue has its own
    for number in range(2000):
        data, fds, _, _ = await asyncio.get_running_loop().run_in_executor(
            None, _receive, theirs)
        assert json.loads(data)["number"] == number
        os.close(fds[0])
    channel.close()


async def test_packet_that_is_too_large_is_refused(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    channel = Channel(ends[0])
    with pytest.raises(ValueError, match="too large"):
        channel.send({"op": "plan", "text": "x" * 70_000})
    channel.close()


def _receive(theirs: socket.socket) -> tuple[bytes, list[int], int, object]:
    theirs.setblocking(True)
    return socket.recv_fds(theirs, 65536, 10)


async def test_what_could_not_be_sent_is_sent_by_the_next_owner(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    first, theirs = Channel(ends[0]), ends[1]
    sent = 0
    while not first.unsent():
        first.send({"op": "log", "n": sent})
        sent += 1
    read, write = os.pipe()
    first.send({"op": "drain"}, [write])
    os.close(write)
    state = json.loads(json.dumps([[text, [os.dup(fd) for fd in fds]]
                                   for text, fds in first.unsent()]))
    second = Channel(ends[0].dup())
    first.close()
    second.send_first(state)
    second.send({"op": "last"})
    said: list[Message] = []
    while not said or said[-1]["op"] != "last":
        data, fds, _, _ = await asyncio.to_thread(_receive, theirs)
        said.append(json.loads(data))
        if fds:
            os.write(fds[0], b"x")
            os.close(fds[0])
    assert [one["op"] for one in said] == ["log"] * sent + ["drain", "last"]
    assert os.read(read, 1) == b"x"
    assert os.read(read, 1) == b""       # no copy is left open
    os.close(read)
    second.close()
