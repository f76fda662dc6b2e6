"""Many connections that do whatever connections do, in random order, beside each other.

What holds for each of them, always: an end receives a prefix of what the other end sent; all of
it, with a clean end behind, when nobody broke the connection; never a clean end before all of it
or for a reset; and nothing is left when both ends are gone.
"""

from __future__ import annotations

import random
import select
import socket

import pytest

from lbcore._scoreboard import BackendState
from tests.support.relay_lab import Lab, Origin, close_all, pool, reset, until

NOISE = random.Random(4).randbytes(4 << 20)


class End:
    """One end of a connection: what it has sent and received, and how it stands."""

    def __init__(self, sock: socket.socket, offset: int) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.offset = offset            # where in the noise its stream begins
        self.sent = self.received = 0
        self.shut = self.ended = self.broken = self.closed = False
        self.cut = False                # reset without an end before it; unix sockets know no reset
        self.peer: End

    def stream(self, start: int, length: int) -> bytes:
        """A piece of what this end sends."""
        at = (self.offset + start) % len(NOISE)
        piece = NOISE[at:at + length]
        return piece + NOISE[:length - len(piece)]

    def send(self, rng: random.Random) -> None:
        data = self.stream(self.sent, rng.choice((1, 100, 3000, 20_000, 80_000, 700_000)))
        try:
            self.sent += self.sock.send(data)
        except BlockingIOError:
            pass
        except (ConnectionResetError, BrokenPipeError):
            self.broken = True

    def receive(self, rng: random.Random) -> bool:
        """False when there was nothing."""
        try:
            data = self.sock.recv(rng.choice((1, 1000, 50_000, 1 << 20)))
        except BlockingIOError:
            return False
        except (ConnectionResetError, BrokenPipeError):
            self.broken = True
            return False
        if data:
            assert data == self.peer.stream(self.received, len(data)), "other bytes"
            self.received += len(data)
            return True
        self.ended = True
        assert not self.peer.cut, "a reset that passed for an end"
        if not self.broken and not self.peer.broken:
            assert self.peer.shut or self.peer.closed, "an end that nobody made"
            assert self.received == self.peer.sent, "a clean end before all was there"
        return False

    def act(self, rng: random.Random, reset_share: float) -> None:
        """Does one thing that is still possible."""
        choice = rng.random()
        if choice < 0.45 and not self.shut:
            self.send(rng)
        elif choice < 0.92 and not self.ended:
            self.receive(rng)
        elif choice < 0.96 and not self.shut:
            self.sock.shutdown(socket.SHUT_WR)
            self.shut = True
        elif rng.random() < reset_share:
            self.broken = self.closed = True
            self.cut = not self.shut and self.sock.family != socket.AF_UNIX
            reset(self.sock)


def link_ends(lab: Lab, origin: Origin, rng: random.Random, listener: int) -> tuple[End, End]:
    client, server = lab.link(origin, listener)
    ends = End(client, rng.randrange(len(NOISE))), End(server, rng.randrange(len(NOISE)))
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    return ends


def settle(ends: list[End], rng: random.Random) -> None:
    """Lets all streams run dry: everything that nobody broke must arrive, and end."""
    for end in ends:
        if not end.closed and not end.shut and not end.broken:
            try:
                end.sock.shutdown(socket.SHUT_WR)
                end.shut = True
            except OSError:
                end.broken = True       # reset already, by what the other end did
    while open_ends := [e for e in ends if not (e.closed or e.ended or e.broken)]:
        ready = select.select([e.sock for e in open_ends], [], [], 10)[0]
        assert ready, [(e.sent, e.received, e.peer.sent, e.shut, e.peer.broken) for e in open_ends]
        for end in open_ends:
            while end.sock in ready and end.receive(rng):
                pass
    close_all([e.sock for e in ends])


@pytest.mark.parametrize("max_pipes", [0, 3, 64])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_whatever_connections_do_nothing_is_lost_mixed_up_or_left_behind(
        lab: Lab, kind: str, max_pipes: int) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    lab.worker.max_pipes = max_pipes
    origin = lab.origin(kind)
    lab.serve(pool(origin, send_proxy=0), kind=kind)
    for _ in range(3):
        ends = [end for _ in range(12) for end in link_ends(lab, origin, rng, 0)]
        reset_share = rng.choice((0, 0, 0.5))
        for _ in range(1500):
            end = rng.choice(ends)
            if not end.closed and not end.broken:
                try:
                    end.act(rng, reset_share)
                except OSError:
                    end.broken = True       # shutdown of a connection that is reset already
            if rng.random() < 0.005:
                lab.apply(pool(origin))
        settle(ends, rng)
        until(lambda: lab.seat["connections"] == 0)
        lab.expect_nothing_held()
    assert lab.backend()["state"] == BackendState.STATE_UP.name.removeprefix("STATE_").lower()
