"""Writing metrics down: both formats, every name and value, thousands of rows."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.admin import families
from lbcore.admin.exposition import Family, Writer, labels
from lbcore.admin.figures import BOUNDS_US, Times
from lbcore.admin.metrics import MOST_ROWS, Metrics
from tests.support.metrics import (
    OPENMETRICS,
    Rows,
    Scrape,
    backend,
    needs_promtool,
    promtool,
    written,
)

KINDS = {"worker": families.WORKER, "listener": families.LISTENER, "route": families.ROUTE,
         "pool": families.POOL, "backend": families.BACKEND}
EVERY = [family for of_kind in KINDS.values() for family in of_kind]


async def text_of(metrics: Metrics) -> str:
    pieces, _ = await metrics.render()
    return b"".join(pieces).decode()


# ---- the formats -------------------------------------------------------------------------------

async def test_both_formats_say_the_same() -> None:
    text, openmetrics = await written(Rows()), await written(Rows(), OPENMETRICS)
    assert text.content_type.startswith("text/plain; version=0.0.4")
    assert openmetrics.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.text.endswith("# EOF\n")
    assert openmetrics.text.count("# EOF") == 1

    def lasting(scrape: Scrape) -> dict[object, float]:
        return {key: value for key, value in scrape.samples.items()
                if not key[0].startswith(("process_", "lbcore_metrics_"))}

    assert lasting(text) == lasting(openmetrics)


@needs_promtool
async def test_promtool_has_nothing_against_names_and_types() -> None:
    promtool("check", "metrics", text=(await written(Rows())).text)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_every_family_is_declared_with_its_type_and_help(accept: str) -> None:
    scrape = await written(Rows(), accept)
    for family in EVERY:
        suffix = "_total" if family.kind == "counter" else (
            "_info" if accept and family.kind == "info" else "")
        found = scrape.families[family.name.removesuffix(suffix)]
        kind = "gauge" if family.kind == "info" and not accept else family.kind
        assert (found.type, found.documentation) == (kind, family.help)


async def test_values_come_from_where_their_name_says() -> None:
    scrape = await written(Rows())
    one = backend().counted
    where = {"pool": "web", "backend": "b1"}
    for name, labelled, value in (
        ("requests_total", {}, one.requests), ("retries_total", {}, one.retries),
        ("reused_connections_total", {}, one.reused), ("inflight", {}, one.inflight),
        ("connections_total", {}, one.connections), ("sent_bytes_total", {}, one.bytes_up),
        ("received_bytes_total", {}, one.bytes_down),
        ("redispatches_total", {}, one.redispatched),
        ("connect_failures_total", {"reason": "refused"}, one.refused),
        ("connect_failures_total", {"reason": "timeout"}, one.timeouts),
        ("connect_failures_total", {"reason": "early_reset"}, one.early_resets),
        ("responses_total", {"class": "none"}, one.status_none),
        ("responses_total", {"class": "2xx"}, one.status_2xx),
        ("responses_total", {"class": "5xx"}, one.status_5xx),
        ("checks_total", {"result": "passed"}, 10), ("checks_total", {"result": "failed"}, 3),
        ("ejections_total", {}, 4), ("ejections_withheld_total", {}, 5),
        ("state_changes_total", {}, 6), ("weight", {}, 2), ("slow_start_ratio", {}, 0.5),
        ("up", {}, 1), ("state", {"state": "up"}, 1), ("state", {"state": "down"}, 0),
        ("info", {"address": "10.0.0.1:8000", "role": "primary"}, 1),
        ("response_duration_seconds_count", {}, 8), ("response_duration_seconds_sum", {}, 0.5),
        ("connect_duration_seconds_bucket", {"le": "+Inf"}, 7),
    ):
        assert scrape.value(f"lbcore_backend_{name}", **where, **labelled) == value, name
    ended = {"listener": "http", "reason": "client_gone"}
    assert scrape.value("lbcore_listener_closed_connections_total", **ended) == 6 + 13
    assert scrape.value("lbcore_listener_exchanges_total", **ended) == 6 + 16 + 17
    assert scrape.value("lbcore_route_responses_total", listener="http", route="default",
                        **{"class": "5xx"}) == 4 + 5
    assert scrape.value("lbcore_reloads_total", result="failed") == 1
    assert scrape.value("lbcore_build_info", version="1.2.3", python="3.11.0") == 1


async def test_what_a_row_does_not_have_is_left_out() -> None:
    plain = backend(http=False, checked=False, check_s=None, check_at=None)
    scrape = await written(Rows([plain], limit=0))
    for name in ("requests", "responses", "retries", "checks", "response_duration_seconds",
                 "last_check_timestamp_seconds", "reused_connections"):
        assert f"lbcore_backend_{name}" not in scrape.families
    for name in ("lbcore_worker_max_fds", "lbcore_listener_max_connections"):
        assert name not in scrape.families
    assert scrape.sum("lbcore_listener_requests_total", listener="tcp") == 0
    assert ("lbcore_listener_requests_total", frozenset({("listener", "tcp")})) \
        not in scrape.samples


def test_bounds_are_ordered_and_written_as_seconds() -> None:
    les = [float(line.split('le="')[1].split('"')[0])
           for family in EVERY if family.kind == "histogram"
           for line in family.template.splitlines() if "_bucket" in line]
    wanted = [*(bound / 1e6 for bound in BOUNDS_US), float("inf")]
    assert les == wanted * (len(les) // len(wanted))
    assert wanted == sorted(wanted)


async def test_histograms_are_cumulative_as_given() -> None:
    up_to = tuple(range(1, len(BOUNDS_US) + 2))
    scrape = await written(Rows([backend(response=Times(up_to, 2.5))]))
    name = "lbcore_backend_response_duration_seconds"
    found = [sample.value for sample in scrape.families[name].samples
             if sample.name == name + "_bucket"]
    assert found == list(up_to)
    assert scrape.sum(name + "_count") == up_to[-1]


# ---- names that people choose ------------------------------------------------------------------

@given(st.text(max_size=20), st.text(max_size=20))
def test_label_values_survive_whatever_they_contain(pool: str, name: str) -> None:
    async def check(accept: str) -> None:
        scrape = await written(Rows([backend(pool, name)]), accept)
        unsaid = str.maketrans("\0\1", "\ufffd\ufffd")
        wanted = {"pool": pool.translate(unsaid), "backend": name.translate(unsaid)}
        assert scrape.value("lbcore_backend_weight", **wanted) == 2

    pool, name = (text.encode("utf-8", "replace").decode() for text in (pool, name))
    for accept in ("", OPENMETRICS):
        asyncio.run(check(accept))


def test_percent_signs_and_braces_are_nothing_special() -> None:
    writer = Writer([Family("lbcore_x", "gauge", "100 %", ("a",), lambda row: (row,))])
    writer.add(labels([("a", '%s {b}"')]), 5)
    assert list(writer.pieces(False)) == [
        b"# HELP lbcore_x 100 %\n# TYPE lbcore_x gauge\n", b'lbcore_x{a="%s {b}\\""} 5\n']


def test_rows_that_lack_different_families_go_where_they_belong() -> None:
    every = Family("lbcore_x", "gauge", "x", ("a",), lambda row: (row,))
    some = Family("lbcore_y", "gauge", "y", ("a",), lambda row: (row,) if row > 1 else None)
    none = Family("lbcore_z", "gauge", "z", ("a",), lambda row: None)
    writer = Writer([none, some, every])
    for row in (1, 2, 3):
        writer.add(labels([("a", str(row))]), row)
    assert b"".join(writer.pieces(True)).decode().splitlines()[2::] == [
        'lbcore_y{a="2"} 2', 'lbcore_y{a="3"} 3', "# HELP lbcore_x x", "# TYPE lbcore_x gauge",
        'lbcore_x{a="1"} 1', 'lbcore_x{a="2"} 2', 'lbcore_x{a="3"} 3']


# ---- many of them ------------------------------------------------------------------------------

async def test_series_are_bounded_and_what_is_left_out_is_said() -> None:
    most = MOST_ROWS["backend"]
    rows = Rows([backend(name=f"b{number}") for number in range(most + 5)],
                {"backend": most + 5})
    text = await text_of(Metrics(rows))
    assert text.count("lbcore_backend_weight{") == most
    assert 'lbcore_metrics_left_out_rows{kind="backend"} 5.0' in text
    assert 'lbcore_metrics_left_out_rows{kind="route"} 0.0' in text


async def test_others_get_their_turn_while_a_thousand_backends_are_written() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await Metrics(Rows([backend(name=f"b{number}") for number in range(1000)])).render()
    counting.cancel()
    assert turns > 5


async def test_scrapes_at_the_same_time_share_what_is_written() -> None:
    rows = Rows([backend(name=f"b{number}") for number in range(300)])
    metrics = Metrics(rows)
    texts = await asyncio.gather(*(text_of(metrics) for _ in range(20)))
    assert rows.reads <= 2
    assert {text.count("lbcore_backend_weight{") for text in texts} == {300}


async def test_a_scrape_never_gets_what_was_written_before_it_was_asked_for() -> None:
    rows = Rows([backend(name=f"b{number}") for number in range(300)])
    metrics = Metrics(rows)
    first = asyncio.create_task(text_of(metrics))
    await rows.began.wait()
    rows.of_backends = [backend(name="new")]
    assert 'backend="new"' in await text_of(metrics)
    assert 'backend="new"' not in await first


async def test_a_scrape_that_is_broken_off_does_not_hold_up_the_next() -> None:
    rows = Rows([backend(name=f"b{number}") for number in range(300)])
    metrics = Metrics(rows)
    first = asyncio.create_task(text_of(metrics))
    await rows.began.wait()
    second = asyncio.create_task(text_of(metrics))
    await asyncio.sleep(0)
    first.cancel()
    assert "lbcore_backend_weight{" in await second
