"""The measurement of what scrapes cost sees what it is to see."""

from __future__ import annotations

from loadtests.scrape import BODY, answer_size, running, watch


def test_scrapes_and_probes_are_timed_while_the_backends_answer() -> None:
    with running(7, "1s") as (port, admin, pid):
        assert answer_size(port) > len(BODY)
        seen, quiet = watch(str(admin), 0.2, 1.0), watch(str(admin), 0, 0.2)
    assert pid > 0
    assert seen.took
    assert min(seen.took) > 0
    assert seen.lines > 7 * 70
    assert seen.size > 7 * 70 * 50
    assert seen.probe_longest >= seen.probe_median > 0
    assert quiet.took == []
    assert quiet.probe_longest > 0
