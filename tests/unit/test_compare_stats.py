"""Medians, ratios and verdicts of the comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.compare import report
from loadtests.compare.peers import PEERS as BALANCERS
from loadtests.compare.procs import HarnessError
from loadtests.compare.run import choose_cpus, stages, steps
from loadtests.compare.sampler import Places
from loadtests.compare.stats import Row, Sample, Spread, Verdict, rotated, spread, table
from loadtests.compare.stats import verdict as judged
from loadtests.compare.works import GROUPS, HTTP, HTTP_APP, HTTP_TWO, WORKS, Work, expanded

KEEPALIVE = WORKS["keepalive-1k"]
MEMORY = WORKS["memory"]
SHOWN = [name for _, name in report.columns(KEEPALIVE)]
PEERS = ["lbcore", "haproxy", "nginx"]


def verdict(work: Work, rows: list[Row]) -> Verdict:
    """Of a run with no other work; the work has a target."""
    found = judged(work, {work.name: rows})
    assert found is not None
    return found


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
    said = verdict(MEMORY, table(MEMORY, found, PEERS))
    assert (said.met, said.value) == (met, size)


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
        {"cpu": "x"}, 1, 1, {}, [KEEPALIVE.name], PEERS,
        samples(lbcore=[9], haproxy=[None], nginx=[10]),
    )
    target = tmp_path / "compare.json"
    report.save(results, target)
    assert report.load(target) == results
    text = report.markdown(results)
    assert "9.0 (9.0-9.0) |" in text
    assert "| 0.90 | met |" in " ".join(text.split())
    assert "no valid sample" in text and "it broke" in text


# ---- more kinds of targets

def throughput(**values: list[float]) -> list[Sample]:
    return [Sample("http-two-workers", peer, number, {"requests_per_s": value})
            for peer, numbers in values.items() for number, value in enumerate(numbers)]


@pytest.mark.parametrize(("mine", "met"), [(1000, True), (999, False)])
def test_throughput_is_compared_with_the_better_of_those_that_are_named(
    mine: float, met: bool
) -> None:
    work = WORKS["http-two-workers"]
    peers = [*PEERS, "envoy"]
    found = throughput(lbcore=[mine], haproxy=[900], nginx=[1000], envoy=[5000])
    rows = table(work, found, peers)
    assert rows[0].ratio == mine / 5000         # the table is about all of them
    said = verdict(work, rows)
    assert (said.value, said.met) == (mine / 1000, met)
    assert said.target == ">= 1.00 x the better of haproxy and nginx"


def test_a_target_about_named_peers_is_missed_when_one_was_not_measured() -> None:
    work = WORKS["http-two-workers"]
    rows = table(work, throughput(lbcore=[1000], nginx=[10]), ["lbcore", "nginx"])
    assert (verdict(work, rows).value, verdict(work, rows).met) == (None, False)


@pytest.mark.parametrize(("on", "met"), [(10.4, True), (10.6, False)])
def test_the_access_log_is_judged_by_what_lbcore_costs_without_it(on: float, met: bool) -> None:
    work, without = WORKS["http-log-1k"], WORKS["http-keepalive-1k"]
    tables = {
        name: table(WORKS[name], [Sample(name, "lbcore", 0, {"cpu_us": value}),
                                  Sample(name, "nginx", 0, {"cpu_us": 1.0})], PEERS)
        for name, value in ((work.name, on), (without.name, 10.0))
    }
    said = judged(work, tables)
    assert said is not None and said.met is met
    del tables[without.name]
    alone = judged(work, tables)
    assert alone is not None and (alone.value, alone.met) == (None, False)


def test_work_without_a_target_is_not_judged() -> None:
    assert judged(WORKS["http-16k"], {"http-16k": []}) is None


# ---- which work is done where

def test_groups_stand_for_their_works_and_no_work_is_done_twice() -> None:
    assert expanded(["tcp", "http"]) == list(WORKS)
    assert expanded(["memory", "tcp"]) == ["memory", *(w for w in GROUPS["tcp"] if w != "memory")]
    assert expanded(["nonsense"]) == ["nonsense"]


def test_log_on_and_off_are_measured_at_the_same_time() -> None:
    parts = stages([WORKS[name] for name in expanded(["http"])])
    together = next(part for part in parts if WORKS["http-log-1k"] in part)
    assert WORKS["http-keepalive-1k"] in together
    assert {work.setup for part in parts for work in part} > {HTTP, HTTP_TWO, HTTP_APP}


def test_variants_with_splice_take_part_where_splice_can_matter() -> None:
    splice, plain = BALANCERS["haproxy-splice"], BALANCERS["haproxy"]
    assert splice.takes(WORKS["http-1m"]) and splice.takes(KEEPALIVE)
    assert not splice.takes(WORKS["http-keepalive-1k"])
    assert all(plain.takes(work) for work in WORKS.values())


def test_the_steps_of_a_run_count_who_takes_part_and_the_saturation_before() -> None:
    both = [BALANCERS["haproxy"], BALANCERS["haproxy-splice"]]
    assert steps([WORKS["http-1m"], WORKS["http-keepalive-1k"]], both, 3) == 3 * 2 + 3 * 1
    assert steps([WORKS["latency"]], both, 3) == (3 + 1) * 2


def test_one_cpu_is_refused_with_what_is_missing() -> None:
    with pytest.raises(HarnessError, match="two CPUs"):
        choose_cpus([3], HTTP)


def test_balancer_and_load_are_kept_apart_where_there_are_cpus_for_it() -> None:
    assert choose_cpus([2, 5, 7], HTTP) == Places((2,), (5,))
    assert choose_cpus([2, 5], HTTP_TWO) == Places((2, 5), (2, 5))
    assert choose_cpus([2, 5, 7, 8], HTTP_TWO) == Places((2, 5), (7, 8))
    assert choose_cpus([2, 5, 7, 8], HTTP_APP).shared
