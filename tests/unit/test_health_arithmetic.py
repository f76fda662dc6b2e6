"""Claims about ejection times, slow start and the sums of a pool."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.health import ejection, slow_start
from lbcore.health.ledger import Entry, Ledger, Mode


def entry(*, up=True, backup=False, counted=True, ejected=False, weight=1, ramp=256):
    return Entry(backup, counted, up, ejected, weight * ramp)


def ledger(*entries):
    book = Ledger()
    for row, item in enumerate(entries):
        book.put(row, item)
    return book


# ---- ejection

def test_each_ejection_is_longer_than_the_one_before_up_to_the_limit():
    assert [ejection.length_ms(n, 10_000, 35_000) for n in range(1, 6)] == [
        10_000, 20_000, 30_000, 35_000, 35_000]


def test_a_backend_is_forgiven_one_ejection_after_being_well_for_as_long_as_it_lasted():
    assert ejection.forgiven(3, 29_999, 10_000, 300_000) == 3
    assert ejection.forgiven(3, 30_000, 10_000, 300_000) == 2
    assert ejection.forgiven(3, 49_999, 10_000, 300_000) == 2
    assert ejection.forgiven(3, 60_000, 10_000, 300_000) == 0


def test_nothing_is_forgiven_below_zero():
    assert ejection.forgiven(1, 1e12, 10_000, 300_000) == 0


@pytest.mark.parametrize(("size", "share", "most"), [
    (0, 0.5, 0), (1, 1.0, 0), (2, 0.5, 1), (2, 0.1, 1), (2, 1.0, 1), (3, 0.5, 1), (4, 0.5, 2),
    (10, 0.0, 0), (100, 0.29, 29), (10, 0.3, 3),
])
def test_the_share_bounds_how_many_are_ejected_at_once(size, share, most):
    assert ejection.most_ejected(size, share) == most


@given(st.integers(0, 5000), st.floats(0, 1))
def test_a_whole_pool_is_never_ejected(size, share):
    assert 0 <= ejection.most_ejected(size, share) <= max(0, size - 1)


def test_the_last_backend_that_takes_traffic_is_not_ejected():
    down = entry(up=False)
    assert not ledger(entry(), down, down, down).may_eject(1.0)
    assert ledger(entry(), entry(), down, down).may_eject(1.0)


def test_a_sick_primary_may_be_ejected_when_a_backup_is_there():
    assert ledger(entry(), entry(backup=True)).may_eject(0.5)


def test_no_more_are_ejected_than_the_share_allows():
    out = entry(up=False, ejected=True)
    assert ledger(out, entry(), entry(), entry()).may_eject(0.5)
    assert not ledger(out, out, entry(), entry()).may_eject(0.5)


# ---- slow start

def test_slow_start_begins_small_never_shrinks_and_ends_full():
    shares = [slow_start.share_at(ms, 1000) for ms in range(0, 1200, 10)]
    assert shares[0] == slow_start.FIRST
    assert shares == sorted(shares)
    assert shares[99] < slow_start.FULL
    assert set(shares[100:]) == {slow_start.FULL}


def test_without_slow_start_a_backend_gets_all_of_its_weight_at_once():
    assert slow_start.share_at(0, 0) == slow_start.FULL


# ---- pools

def test_a_pool_with_all_primaries_up_is_normal():
    verdict = ledger(entry(weight=3), entry(weight=2), entry(backup=True)).verdict(0.5)
    assert verdict.mode is Mode.NORMAL
    assert verdict.total_weight == 5


def test_backups_take_over_only_when_no_primary_is_up():
    down, backup = entry(up=False), entry(backup=True, weight=7)
    assert ledger(entry(), down, backup).verdict(0).mode is Mode.NORMAL
    verdict = ledger(down, down, backup).verdict(0)
    assert verdict.mode is Mode.BACKUP
    assert verdict.total_weight == 7


def test_one_backup_that_works_is_better_than_panic():
    assert ledger(entry(up=False), entry(backup=True)).verdict(0.9).mode is Mode.BACKUP


def test_too_few_backups_are_panic_among_backups():
    down = entry(up=False)
    sick_backup = entry(up=False, backup=True)
    verdict = ledger(down, entry(backup=True), sick_backup, sick_backup).verdict(0.5)
    assert verdict.mode is Mode.BACKUP_PANIC
    assert verdict.panic and verdict.backup


def test_panic_begins_below_the_threshold_not_at_it():
    down = entry(up=False)
    assert ledger(entry(), entry(), down, down).verdict(0.5).mode is Mode.NORMAL
    verdict = ledger(entry(), down, down).verdict(0.5)
    assert verdict.mode is Mode.PANIC
    assert verdict.total_weight == 3, "everybody is tried"


def test_draining_and_weightless_backends_are_not_counted_as_sick():
    away = entry(counted=False)
    assert ledger(entry(), away, away, away).verdict(0.9).mode is Mode.NORMAL


def test_without_a_threshold_a_pool_of_dead_backends_has_nobody():
    verdict = ledger(entry(up=False), entry(up=False, backup=True)).verdict(0.0)
    assert verdict.mode is Mode.NONE
    assert verdict.total_weight == 0


def test_a_backend_in_slow_start_counts_with_its_share():
    assert ledger(entry(weight=100, ramp=64), entry(weight=100)).verdict(0).total_weight == 125


def test_even_the_lightest_backend_in_slow_start_weighs_something():
    assert ledger(entry(weight=1, ramp=26)).verdict(0).total_weight == 1


entries = st.builds(
    Entry, backup=st.booleans(), counted=st.booleans(), up=st.booleans(), ejected=st.booleans(),
    weight=st.integers(0, 256_000))


@given(st.lists(st.tuples(st.integers(0, 7), entries), max_size=40), st.floats(0, 1))
def test_sums_kept_one_change_at_a_time_equal_sums_from_scratch(changes, threshold):
    book, last = Ledger(), {}
    for row, item in changes:
        book.put(row, item)
        last[row] = item
    fresh = Ledger()
    for row, item in last.items():
        fresh.put(row, item)
    assert book.verdict(threshold) == fresh.verdict(threshold)
    assert book.may_eject(threshold) == fresh.may_eject(threshold)
