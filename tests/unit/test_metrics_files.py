"""The guide, the alert rules and the dashboard are about metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lbcore.admin import families
from lbcore.admin.metrics import MOST_ROWS
from tests.support.metrics import (
    GUIDE,
    Rows,
    Scrape,
    backend,
    in_guide,
    needs_promtool,
    promtool,
    tables,
    written,
)

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "conf/prometheus"
RULES, RULE_TESTS = PROMETHEUS / "lbcore.rules.yml", PROMETHEUS / "lbcore.rules.test.yml"
DASHBOARD = ROOT / "conf/grafana/lbcore.json"
OF_PROMETHEUS = {"job", "instance", "alertstate", "alertname"}      # labels that it adds
SELECTOR = re.compile(r"\b(?P<name>(?:lbcore|process)_\w+)(?:\{(?P<labels>[^}]*)\})?")
BY = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


@cache
def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def panels() -> list[Any]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Every expression of the dashboard, with where it stands."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for one in dashboard()["annotations"]["list"]:
        yield one["name"], one["expr"]
    for one in dashboard()["templating"]["list"]:
        if one["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", one["definition"])
            assert found, one
            yield one["name"], f"count by ({found[2]}) ({found[1]})"


def alerts() -> list[tuple[str, str]]:
    """Names and expressions of the rules, without a parser of YAML."""
    found = re.split(r"^ *- alert: ", RULES.read_text(), flags=re.MULTILINE)[1:]
    return [(one.split("\n")[0], one[one.index("expr:") + 5 : one.index("labels:")])
            for one in found]


def wrong_names(scrape: Scrape, expression: str) -> list[str]:
    """What an expression names that is not served."""
    labels: dict[str, set[str]] = {}
    for name, of in scrape.samples:
        labels.setdefault(name, set()).update(label for label, _ in of)
    wrong, known = [], set(OF_PROMETHEUS)
    for found in SELECTOR.finditer(expression):
        if found["name"] not in labels:
            wrong.append(found["name"])
            continue
        known |= labels[found["name"]]
        asked = re.findall(r"(\w+)\s*[=!]~?", found["labels"] or "")
        wrong += [f"{found['name']}: {label}" for label in asked
                  if label not in labels[found["name"]] | OF_PROMETHEUS]
    for group in BY.findall(expression):
        wrong += [f"by {label}" for label in re.findall(r"\w+", group) if label not in known]
    return wrong


async def test_the_guide_lists_every_metric_as_it_is_served() -> None:
    wanted = tables(await written(Rows()))
    assert in_guide(GUIDE.read_text()) == wanted, "run: python -m tests.support.metrics"


async def test_the_guide_counts_series_rightly() -> None:
    plain = (await written(Rows([backend(http=False)]))).samples
    full = (await written(Rows())).samples

    def count(samples: Any, kind: str, *wanted: tuple[str, str]) -> int:
        names = {family.name for family in getattr(families, kind)}
        return sum(re.sub("_(bucket|sum|count)$", "", name) in names and set(wanted) <= set(of)
                   for name, of in samples)

    text = GUIDE.read_text().replace("\n", " ")
    assert (f"A backend has {count(full, 'BACKEND')} series with HTTP and checks, "
            f"{count(plain, 'BACKEND')} with TCP and checks; a route has {count(full, 'ROUTE')}, "
            f"a listener {count(full, 'LISTENER', ('listener', 'http'))} with HTTP and "
            f"{count(full, 'LISTENER', ('listener', 'tcp'))} with TCP, a pool "
            f"{count(full, 'POOL')}, a worker {count(full, 'WORKER')}.") in text
    most = {kind: f"{number:,} {kind}s" for kind, number in MOST_ROWS.items()}
    assert (f"At most {most['backend']}, {most['route']}, {most['pool']} and "
            f"{most['listener']} are shown") in text


def test_the_guide_says_what_to_do_about_every_alert() -> None:
    text = GUIDE.read_text()
    severities = re.findall(r"severity: (\w+)", RULES.read_text())
    for (name, _), severity in zip(alerts(), severities, strict=True):
        assert f"| `{name}` | {severity} |" in text


async def test_rules_and_dashboard_ask_for_what_is_served() -> None:
    scrape = await written(Rows())
    asked = [*alerts(), *queries()]
    asked += [("the guide", block) for block in
              re.findall(r"```promql\n(.*?)```", GUIDE.read_text(), re.DOTALL)]
    assert len(asked) > 60
    assert {where: wrong for where, expression in asked
            if (wrong := wrong_names(scrape, expression))} == {}


def test_a_name_that_is_not_served_is_found() -> None:
    scrape = Scrape(b'# TYPE lbcore_a gauge\nlbcore_a{b="1"} 1\n', "text/plain")
    assert wrong_names(scrape, 'sum by (b) (lbcore_a{b="1", instance="x"})') == []
    assert wrong_names(scrape, "rate(lbcore_c[5m])") == ["lbcore_c"]
    assert wrong_names(scrape, 'sum by (e) (lbcore_a{d=~"1"})') == ["lbcore_a: d", "by e"]


# ---- promtool ----------------------------------------------------------------------------------

@needs_promtool
def test_rules_and_scrape_configuration_are_valid() -> None:
    promtool("check", "rules", str(RULES))
    promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


@needs_promtool
def test_rules_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", RULE_TESTS.name, folder=PROMETHEUS)


def test_every_alert_is_tested() -> None:
    tested = RULE_TESTS.read_text()
    assert [name for name, _ in alerts() if name not in tested] == []


@needs_promtool
def test_every_query_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    """As recording rules: that is what promtool can judge."""
    rules = []
    for number, (_, expression) in enumerate(queries()):
        plain = expression.replace("$__rate_interval", "5m")
        plain = re.sub(r'"\$\w+"', '".+"', plain)
        assert "$" not in plain, expression
        rules.append({"record": f"q{number}", "expr": plain})
    path = tmp_path / "rules.json"               # which is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(path))


# ---- the dashboard -----------------------------------------------------------------------------

def test_every_panel_of_the_dashboard_has_its_place() -> None:
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((x, y), panel["title"])
                assert other == panel["title"], f"{other} and {panel['title']} overlap"


def test_the_dashboard_uses_only_variables_that_it_has() -> None:
    known = {one["name"] for one in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text()))
    assert used - known == {"__rate_interval", "__all"}


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_legends_name_labels_that_the_query_keeps(panel: Any) -> None:
    for target in panel["targets"]:
        kept = [group for group in BY.findall(target["expr"]) if group]
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            if kept:
                assert label in re.findall(r"\w+", ",".join(kept))
