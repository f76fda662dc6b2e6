"""The shared segment: nobody can cut it short, and counts that a killed worker left are found."""

from __future__ import annotations

import os

import pytest

from lbcore._scoreboard import (
    CAPACITY,
    HTTP_END_NAMES,
    SIZES,
    STATUS_NAMES,
    HttpEnd,
    LayoutError,
    Scoreboard,
    histogram_bound,
)


def test_nobody_can_cut_the_segment_short() -> None:
    board = Scoreboard.create()
    with pytest.raises(PermissionError):
        os.ftruncate(board.fd, 4096)


def test_a_segment_of_another_size_is_no_scoreboard() -> None:
    fd = os.memfd_create("other")
    os.ftruncate(fd, 4096)
    with pytest.raises(LayoutError):
        Scoreboard.attach(fd)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_segment_of_another_layout_is_refused_and_closed() -> None:
    board = Scoreboard.create()
    fd = os.dup(board.fd)
    os.pwrite(fd, b"\xff\xff\xff\xff", 8)
    with pytest.raises(LayoutError):
        Scoreboard.attach(fd)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_what_an_ended_worker_had_counted_is_kept_and_its_seat_is_given_again() -> None:
    board = Scoreboard.create()
    seat = board.take_seat(3)
    assert board.seat(seat)["slot"] == 3
    board.leave_seat(seat, 10, 10, 10)
    assert board.take_seat(4) == seat


def test_seats_run_out_with_an_error() -> None:
    board = Scoreboard.create()
    for slot in range(127):
        board.take_seat(slot)
    with pytest.raises(LookupError):
        board.take_seat(0)


@pytest.mark.parametrize(("kind", "field"), [("backend", "inflight"), ("pool", "inflight"),
                                             ("waiting", "waiting")])
def test_a_count_that_no_worker_stands_for_is_found_and_taken_off(kind: str, field: str) -> None:
    board = Scoreboard.create()
    board.adjust(kind, 2, -3)       # three more than anybody counted
    assert board.reconcile(4, 4, 4) == [(kind, 2, 3)]
    seen = board.backend(2) if kind == "backend" else board.pool(2)
    assert seen[field] == 3
    board.adjust(kind, 2, 3)
    assert board.reconcile(4, 4, 4) == []


def test_an_ended_worker_gives_memory_back() -> None:
    """A seat whose tables were never used takes none when it is left."""
    board = Scoreboard.create()
    used = os.fstat(board.fd).st_blocks
    for _ in range(20):
        board.leave_seat(board.take_seat(0), 4, 4, 4)
    assert (os.fstat(board.fd).st_blocks - used) * 512 < 256 * 1024


def test_histogram_bounds_rise() -> None:
    bounds = [histogram_bound(bucket) for bucket in range(96)]
    assert bounds == sorted(set(bounds))


def test_rows_outside_the_segment_are_refused() -> None:
    board = Scoreboard.create()
    for row in (-1, 16384):
        with pytest.raises(IndexError):
            board.backend(row)


def test_rows_have_the_sizes_that_pages_and_cache_lines_are_reckoned_with() -> None:
    assert SIZES == {
        "backend_live": 32, "pool_live": 64, "listener_live": 64, "backend_counters": 1024,
        "listener_counters": 512, "pool_counters": 32, "route_counters": 512, "source_entry": 16,
        "rate_bucket": 16, "learnt": 24, "seat": 256, "header": 4096,
    }


def test_every_way_an_exchange_ends_has_its_name() -> None:
    board = Scoreboard.create()
    assert list(board.listener_totals(0)["http_ended"]) == list(HTTP_END_NAMES)
    for end in HttpEnd:
        if end is not HttpEnd.HTTP_ENDS:
            assert HTTP_END_NAMES[end] == end.name.removeprefix("HTTP_").lower()


def test_totals_begin_at_nothing() -> None:
    board = Scoreboard.create()
    route = board.route_totals(CAPACITY["routes"] - 1)
    assert route["requests"] == 0
    assert list(route["status"]) == list(STATUS_NAMES)
    assert sum(route["total_us"]) == sum(board.backend_totals(0)["response_us"]) == 0
    with pytest.raises(IndexError):
        board.route_totals(CAPACITY["routes"])


# ---- what workers count for http ---------------------------------------------------------------

def row_at(board: Scoreboard, kind: str, seat: int, row: int) -> int:
    """Where a worker's counters of a row lie in the segment."""
    per_seat = (("backends", "backend_counters"), ("listeners", "listener_counters"),
                ("pools", "pool_counters"), ("sources", "source_entry"),
                ("routes", "route_counters"))
    at = os.fstat(board.fd).st_size - CAPACITY["rates"] * SIZES["rate_bucket"]
    at -= CAPACITY["learnt"] * SIZES["learnt"]
    for rows, struct in reversed(per_seat):
        many = 65536 if rows == "sources" else CAPACITY[rows]
        at -= (CAPACITY["seats"] + 1) * many * SIZES[struct]
        if struct == kind:
            return at + (seat * many + row) * SIZES[struct]
    raise LookupError(kind)


def write(board: Scoreboard, kind: str, seat: int, row: int, at: int, *numbers: int) -> None:
    """What a worker would write: 64-bit numbers, ``at`` bytes behind the start of the row."""
    data = b"".join(number.to_bytes(8, "little") for number in numbers)
    os.pwrite(board.fd, data, row_at(board, kind, seat, row) + at)


def test_what_workers_answered_is_added_up_and_outlives_them() -> None:
    board = Scoreboard.create()
    seats = [board.take_seat(slot) for slot in range(2)]
    for seat in seats:
        write(board, "route_counters", seat, 7, 0, 10, 1, 0, 5, 0, 3, 1, 2, 1000, 2000)
        write(board, "backend_counters", seat, 3, 448, 9, 0, 0, 6, 1, 1, 1, 4, 8)
        write(board, "listener_counters", seat, 1, 168, 12, 10, 2)

    def totals() -> list[object]:
        return [board.route_totals(7), board.backend_totals(3), board.listener_totals(1)]

    before = totals()
    route, backend = board.route_totals(7), board.backend_totals(3)
    listener = board.listener_totals(1)
    assert (route["requests"], route["retries"]) == (20, 4)
    assert (route["bytes_up"], route["bytes_down"]) == (2000, 4000)
    assert list(route["status"].values()) == [2, 0, 10, 0, 6, 2]
    assert list(backend["status"].values()) == [0, 0, 12, 2, 2, 2]
    assert (backend["requests"], backend["retries"], backend["reused"]) == (18, 8, 16)
    assert listener["requests"] == 24
    assert listener["http_ended"]["ok"] == 20
    assert listener["http_ended"]["bad_request"] == 4
    for seat in seats:
        board.leave_seat(seat, 10, 10, 10)
        assert totals() == before
    assert board.take_seat(0) == seats[0]
    assert totals() == before
    board.reset_route(7)
    assert board.route_totals(7)["requests"] == 0


def test_durations_are_kept_by_bucket() -> None:
    board = Scoreboard.create()
    seat = board.take_seat(0)
    write(board, "route_counters", seat, 0, 96, 1 | 2 << 32)
    write(board, "backend_counters", seat, 0, 520, 3 | 4 << 32)
    board.leave_seat(seat, 1, 1, 1)
    assert board.route_totals(0)["total_us"][:3] == [1, 2, 0]
    assert board.backend_totals(0)["response_us"][:3] == [3, 4, 0]
