"""Reading many rows of the scoreboard at once: the sums are those of the single reads."""

from __future__ import annotations

import os
import struct

import pytest

from lbcore import _figures
from lbcore._figures import Histogram
from lbcore._scoreboard import CAPACITY, SIZES, Scoreboard, histogram_bound

SEATS = CAPACITY["seats"] + 1


def backend_at(seat: int, row: int) -> int:
    """Where the counters of a backend by one seat begin in the segment."""
    before = SIZES["header"] + SEATS * SIZES["seat"] + CAPACITY["backends"] * \
        SIZES["backend_live"] + CAPACITY["pools"] * SIZES["pool_live"] + \
        CAPACITY["listeners"] * SIZES["listener_live"]
    return before + (seat * CAPACITY["backends"] + row) * SIZES["backend_counters"]


def count(board: Scoreboard, seat: int, row: int, connections: int, bucket: int) -> None:
    """As a worker would have counted: connections, all of one connect time."""
    os.pwrite(board.fd, struct.pack("<Q", connections), backend_at(seat, row) + 8)
    os.pwrite(board.fd, struct.pack("<I", connections), backend_at(seat, row) + 64 + 4 * bucket)


def test_a_backend_is_summed_over_all_seats_that_are_taken() -> None:
    board = Scoreboard.create()
    for seat in (board.take_seat(0), board.take_seat(1)):
        count(board, seat, 7, 100, 20)
    count(board, 9, 7, 1000, 20)        # nobody sits there
    found = _figures.backends(board, [3, 7])
    assert dict(zip(found.fields, found.numbers(1), strict=True))["connections"] == 200
    assert found.histogram(1, _figures.CONNECT)[20] == 200
    assert not any(found.numbers(0)) and not any(found.histogram(1, _figures.RESPONSE))
    totals = board.backend_totals(7)
    assert totals["connections"] == 200 and totals["connect_us"] == found.histogram(1)


def test_all_kinds_read_the_same_as_one_row_at_a_time() -> None:
    board = Scoreboard.create()
    seat = board.take_seat(0)
    for at in range(0, SIZES["backend_counters"], 8):      # every number is another one
        os.pwrite(board.fd, struct.pack("<II", at + 1, at + 2), backend_at(seat, 5) + at)
    figures = _figures.backends(board, [5])
    said = dict(zip(figures.fields, figures.numbers(0), strict=True))
    totals = board.backend_totals(5)
    for name, value in said.items():
        if name.startswith("status_"):
            assert value == totals["status"][name.removeprefix("status_")], name
        elif name != "inflight":
            assert value == totals[name], name
    assert figures.histogram(0, _figures.CONNECT) == totals["connect_us"]
    assert figures.histogram(0, _figures.RESPONSE) == totals["response_us"]
    one = _figures.backends(board, [5, 5], [_figures.RESPONSE, _figures.CONNECT])
    assert one.histogram(0) == totals["response_us"] and one.histogram(1) == totals["connect_us"]


def test_growth_between_two_moments_is_told_and_a_cleared_row_starts_over() -> None:
    board = Scoreboard.create()
    seat = board.take_seat(0)
    count(board, seat, 1, 50, 10)
    before = _figures.backends(board, [1])
    count(board, seat, 1, 80, 10)
    now = _figures.backends(board, [0, 1])
    at = now.fields.index("connections")
    assert now.since(1, before, 0)[at] == 30
    took = Histogram()
    took.add_since(now, 1, _figures.CONNECT, before, 0)
    assert took.total == 30 and took.quantile(50) == histogram_bound(10)
    board.reset_backend(1)
    count(board, seat, 1, 4, 12)
    cleared = _figures.backends(board, [1])
    assert cleared.since(0, before, 0)[at] == 4
    took = Histogram()
    took.add_since(cleared, 0, _figures.CONNECT, before, 0)
    assert took.total == 4


def test_buckets_up_to_limits_are_cumulative_and_end_with_all() -> None:
    board = Scoreboard.create()
    seat = board.take_seat(0)
    count(board, seat, 0, 10, 36)        # 1024..1279 us
    figures = _figures.backends(board, [0])
    took = Histogram()
    took.add(figures, 0)
    assert histogram_bound(36) == 1280
    assert took.up_to((1000, 1278, 1279, 5000)) == [0, 0, 10, 10, 10]
    assert took.estimated_sum() == 10 * (histogram_bound(35) + 1279) / 2
    assert Histogram().quantile(99) is None


def test_rows_that_cannot_be_are_refused() -> None:
    board = Scoreboard.create()
    for read, kind in ((_figures.backends, "backends"), (_figures.listeners, "listeners"),
                       (_figures.routes, "routes"), (_figures.pools, "pools")):
        with pytest.raises(IndexError):
            read(board, [CAPACITY[kind]])
        with pytest.raises(IndexError):
            read(board, [0]).numbers(1)
    with pytest.raises(IndexError):
        Histogram().add(_figures.pools(board, [0]), 0)
