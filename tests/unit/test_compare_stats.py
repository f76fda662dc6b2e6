"""Medians, ratios and verdicts of the comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.compare import report
from loadtests.compare.procs import HarnessError
from loadtests.compare.run import choose_cpus
from loadtests.compare.stats import Sample, Spread, rotated, spread, table, verdict
from loadtests.compare.works import WORKS

KEEPALIVE = WORKS["keepalive-1k"]
MEMORY = WORKS["memory"]
SHOWN = [name for _, name in report.columns(KEEPALIVE)]
PEERS = ["lbcore", "haproxy", "nginx"]


def samples(**cpu: list[float | None]) -> list[Sample]:
    """Samples of the keep-alive work: a list of CPU values for each peer, None for a failure."""
    return [
        Sample(KEEPALIVE.name, peer, number, error="it broke")
        if value is None
        else Sample(KEEPALIVE.name, peer, number, dict.fromkeys(SHOWN, 1.0) | {"cpu_us": value})
        for peer, values in cpu.items()
        for number, value in enumerate(values)
    ]


def test_spread_is_median_and_range() -> None:
    assert spread([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_ratio_is_to_the_best_median_of_the_others() -> None:
    found = samples(lbcore=[9, 8, 9], haproxy=[12, 1, 12], nginx=[10, 10, 30])
    rows = table(KEEPALIVE, found, PEERS)
    assert [row.ratio for row in rows] == [0.9, 1.2, 1.0]


def test_other_work_does_not_mix_in() -> None:
    other = Sample("memory", "nginx", 0, {"cpu_us": 1.0})
    rows = table(KEEPALIVE, [*samples(lbcore=[9], nginx=[10]), other], PEERS)
    assert rows[2].values["cpu_us"].median == 10


def test_failed_samples_do_not_count_but_are_told() -> None:
    rows = table(KEEPALIVE, samples(lbcore=[9, None], haproxy=[None, None], nginx=[10, 10]), PEERS)
    assert [(row.rounds, row.failed) for row in rows] == [(1, 1), (0, 2), (2, 0)]
    assert rows[1].values == {} and rows[1].ratio is None


def test_without_another_peer_there_is_no_ratio() -> None:
    rows = table(KEEPALIVE, samples(lbcore=[9]), ["lbcore"])
    assert rows[0].ratio is None
    assert not verdict(KEEPALIVE, rows).met


@pytest.mark.parametrize(("cpu", "met"), [(9.2, True), (9.3, False)])
def test_relative_target_is_judged_by_the_ratio(cpu: float, met: bool) -> None:
    rows = table(KEEPALIVE, samples(lbcore=[cpu], nginx=[10]), PEERS)
    assert verdict(KEEPALIVE, rows).met is met


@pytest.mark.parametrize(("size", "met"), [(600.0, True), (601.0, False)])
def test_absolute_target_is_judged_by_the_value(size: float, met: bool) -> None:
    found = [Sample("memory", "lbcore", 0, {"bytes_per_pair": size}),
             Sample("memory", "nginx", 0, {"bytes_per_pair": 100.0})]
    judged = verdict(MEMORY, table(MEMORY, found, PEERS))
    assert (judged.met, judged.value) == (met, size)


def test_target_is_missed_when_a_sample_of_lbcore_failed_or_none_was_taken() -> None:
    failed = table(KEEPALIVE, samples(lbcore=[5, None], nginx=[10, 10]), PEERS)
    assert not verdict(KEEPALIVE, failed).met
    absent = verdict(KEEPALIVE, table(KEEPALIVE, samples(nginx=[10]), PEERS))
    assert (absent.met, absent.value) == (False, None)


def test_every_round_begins_with_another_peer() -> None:
    assert [rotated(PEERS, n)[0] for n in range(4)] == ["lbcore", "haproxy", "nginx", "lbcore"]
    assert sorted(rotated(PEERS, 2)) == sorted(PEERS)


def test_saved_results_load_to_the_same_verdicts(tmp_path: Path) -> None:
    results = report.Results(
        {"cpu": "x"}, 1, 1, 0.0, [KEEPALIVE.name], PEERS,
        samples(lbcore=[9], haproxy=[None], nginx=[10]),
    )
    target = tmp_path / "compare.json"
    report.save(results, target)
    assert report.load(target) == results
    text = report.markdown(results)
    assert "9.0 (9.0-9.0) |" in text
    assert "| 0.90 | met |" in " ".join(text.split())
    assert "no valid sample" in text and "it broke" in text


def test_one_cpu_is_refused_with_what_is_missing() -> None:
    with pytest.raises(HarnessError, match="two CPUs"):
        choose_cpus([3])
    assert choose_cpus([2, 5, 7]) == (2, 5)
