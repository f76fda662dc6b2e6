"""Several processes on one scoreboard, at once: what holds over all workers holds in every race."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.support.balance_lab import Lab, keys

WORKERS = 4
ROUNDS = 4000
ATTEMPTS = 200_000


def hammer(lab: Lab, worker: int, limits: dict[int, int]) -> int:
    """Takes and gives back places; returns how often a limit was seen broken."""
    draw = random.Random(worker)
    asked = keys(50)
    held: list[int] = []
    broken = 0
    for _ in range(ROUNDS):
        if held and (len(held) > 4 or draw.random() < 0.4):
            lab.release(held.pop(draw.randrange(len(held))), worker)
            continue
        i = lab.pick(draw.choice(asked), worker)
        if i >= 0:
            held.append(i)
            broken += any(lab.inflight(k) > limit for k, limit in limits.items())
    while held:
        lab.release(held.pop(), worker)
    return broken


def contend(lab: Lab, worker: int) -> int:
    """Goes for the only place there is, as fast as can be."""
    broken = 0
    for _ in range(ATTEMPTS):
        if lab.pick(worker=worker) == 0:
            broken += lab.inflight(0) > 1
            lab.release(0, worker)
    return broken


def at_once(lab: Lab, work: Callable[[int], int]) -> None:
    """Runs ``work`` in a process for each worker; nobody may have seen a limit broken."""
    children = []
    for worker in range(len(lab.workers)):
        child = os.fork()
        if child == 0:
            status = 2
            try:
                status = 1 if work(worker) else 0
            finally:
                os._exit(status)
        children.append(child)
    ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert ended == [0] * len(children)


def test_the_last_place_is_taken_once() -> None:
    lab = Lab([1], limits={0: 1}, seats=2)
    at_once(lab, lambda worker: contend(lab, worker))
    assert lab.inflight(0) == 0


@pytest.mark.parametrize("balance", ["round_robin", "least_conn", "random", "maglev", "ketama"])
def test_limits_hold_in_every_race_and_every_place_comes_back(balance: str) -> None:
    limits = {0: 2, 1: 3, 2: 1}
    lab = Lab([3, 2, 1], balance, limits=limits, seats=WORKERS)
    at_once(lab, lambda worker: hammer(lab, worker, limits))
    assert [lab.inflight(i) for i in range(3)] == [0, 0, 0]
    assert lab.board.pool(0)["inflight"] == 0
    assert lab.board.reconcile(3, 1, 0) == []
