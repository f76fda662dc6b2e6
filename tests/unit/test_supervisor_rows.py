"""Scoreboard rows: kept with their key, given to others only when nobody uses them."""

from __future__ import annotations

import pytest

from lbcore.supervisor.rows import Key, NoRowFree, RowTable

A, B, C = ("pool", "a"), ("pool", "b"), ("pool", "c")
HOLD = 10.0


def put(table: RowTable, keys: list[Key], now: float = 0.0) -> dict[Key, int]:
    rows = table.assign(keys)
    table.commit(rows, now, HOLD)
    return rows


def test_row_stays_with_its_key_over_plans() -> None:
    table = RowTable("backend", 10)
    before = put(table, [A, B])
    assert put(table, [C, B, A])[A] == before[A]
    assert len(set(table.live.values())) == 3


def test_assigning_changes_nothing_until_it_is_committed() -> None:
    table = RowTable("backend", 10)
    table.assign([A, B])
    assert table.live == {}
    assert table.high == 0


def test_row_of_a_removed_key_is_free_only_after_the_hold_and_when_idle() -> None:
    table, reset = RowTable("backend", 2), []
    row = put(table, [A, B])[A]
    put(table, [B], now=100)
    with pytest.raises(NoRowFree, match="1 are those of backends that have left"):
        table.assign([B, C])
    assert table.release(100 + HOLD, lambda _: True, reset.append) == 0
    assert table.release(101 + HOLD, lambda _: False, reset.append) == 0
    assert table.release(101 + HOLD, lambda _: True, reset.append) == 1
    assert reset == [row]
    assert table.assign([B, C])[C] == row


def test_more_keys_than_rows_are_never_possible() -> None:
    with pytest.raises(ValueError, match="3 backends are more than the 2") as refused:
        RowTable("backend", 2).assign([A, B, C])
    assert not isinstance(refused.value, NoRowFree)
    assert len(RowTable("backend", 2).assign([A, B, A])) == 2


def test_key_that_comes_back_finds_its_row_and_counters_again() -> None:
    table, reset = RowTable("backend", 10), []
    row = put(table, [A, B])[A]
    put(table, [B])
    assert put(table, [A, B], now=1)[A] == row
    assert table.release(1000, lambda _: True, reset.append) == 0
    assert reset == []


def test_table_survives_an_export() -> None:
    table = RowTable("backend", 10)
    put(table, [A, B])
    put(table, [B, C], now=5)
    other = RowTable("backend", 10)
    other.restore(table.export())
    assert other == table
