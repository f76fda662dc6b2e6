"""docs/balancing.md says what is so."""

from __future__ import annotations

import pytest

from loadtests.balance_table import PAGE, TABLES, disruption, parts, section


@pytest.mark.parametrize("name", ["evenness", "disruption"])
def test_documented_numbers_are_those_that_the_command_measures(name: str) -> None:
    assert section(PAGE.read_text(), name) == "\n".join(TABLES[name]())


def test_every_measured_section_is_filled() -> None:
    page = PAGE.read_text()
    assert page.count("<!-- measured: ") == len(TABLES)
    assert all(section(page, name) for name in TABLES)


@pytest.mark.parametrize("count", [1, 10, 100, 1000])
def test_maglev_shares_are_within_a_hundredth_of_fair(count: int) -> None:
    assert 0.99 < min(parts("maglev", count)) <= max(parts("maglev", count)) < 1.01


@pytest.mark.parametrize("count", [1, 10, 100, 1000])
def test_ketama_shares_are_within_a_third_of_fair(count: int) -> None:
    assert 0.67 < min(parts("ketama", count)) <= max(parts("ketama", count)) < 1.33


def percentages(row: str) -> list[float]:
    return [float(cell.strip().rstrip("%")) for cell in row.strip("|").split("|")[1:]]


def test_a_change_of_one_backend_moves_little_more_than_its_own_keys() -> None:
    """At most six in a thousand move without need, however many backends there are."""
    for row in disruption()[2:]:
        ideal, maglev, needless, ketama, none = percentages(row)
        assert needless < 0.6
        assert none == 0
        assert maglev - needless == pytest.approx(ideal, rel=0.15, abs=0.05)
        assert ketama == pytest.approx(ideal, rel=0.25)
