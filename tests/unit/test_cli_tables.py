"""What ``lbcore status`` prints of HTTP."""

from __future__ import annotations

from typing import Any

from lbcore._scoreboard import HTTP_END_NAMES, STATUS_NAMES
from lbcore.cli.picture import describe
from lbcore.cli.tables import plain

Json = dict[str, Any]
NOW = "2026-01-01T00:00:00.000Z"


def classes(**many: int) -> Json:
    return {name: many.get(f"s{name}", 0) for name in STATUS_NAMES}


def backend(name: str, **more: Any) -> Json:
    return {
        "name": name, "resolved": "127.0.0.1:1", "backup": False, "state": "up", "since": NOW,
        "reason": "", "weight": 1, "weight_configured": 1, "weight_overridden": False,
        "inflight": 0, "connections": 4, "failures": 0, "last_check": None, "requests": 0,
        "status": classes(), "retries": 0, "reused": 0,
        "response_ms": {"p50": None, "p90": None, "p99": None}, **more,
    }


def status(listener: Json, backends: list[Json]) -> Json:
    shown = {"name": "in", "bind": ["127.0.0.1:80"], "pool": "web", "connections": 1,
             "accepted": 2, "bytes_up": 3, "bytes_down": 4, "ended": {}, **listener}
    return {
        "version": "1", "pid": 1, "state": "running", "started": NOW, "workers": [],
        "plan": {"version": 1, "applied_at": NOW}, "upgrade": {"state": "none"},
        "listeners": [shown],
        "pools": [{"name": "web", "balance": "round_robin", "state": "normal", "waiting": 0,
                   "backends": backends}],
    }


def cells(said: Json) -> list[list[str]]:
    return [line.split() for line in plain(describe(said))]


def test_requests_are_shown_by_class_for_the_listener_and_each_of_its_routes() -> None:
    said = cells(status({
        "requests": 30, "status": classes(s2xx=20, s4xx=9, snone=1), "retries": 2,
        "http_ended": dict.fromkeys(HTTP_END_NAMES, 0) | {"ok": 29, "client_gone": 1},
        "routes": [{"name": "api", "action": "pool", "pool": "web", "requests": 30,
                    "status": classes(s2xx=20, s4xx=9, snone=1), "retries": 2,
                    "total_ms": {"p50": 1.25, "p90": 2.0, "p99": 10.24}},
                   {"name": "old", "action": "redirect", "pool": None, "requests": 0,
                    "status": classes(), "retries": 0,
                    "total_ms": {"p50": None, "p90": None, "p99": None}}],
    }, [backend("a")]))
    assert ["in", "-", "30", "20", "0", "9", "0", "1", "2", "-", "-", "client_gone", "1"] in said
    assert ["api", "web", "30", "20", "0", "9", "0", "1", "2", "1.25ms", "10.2ms", "-"] in said
    assert ["old", "redirect", *["0"] * 7, "-", "-", "-"] in said


def test_backends_that_answered_show_how() -> None:
    said = cells(status({}, [
        backend("a", requests=7, status=classes(s2xx=6, s5xx=1), retries=1, reused=5,
                response_ms={"p50": 0.5, "p90": 1.0, "p99": 2.0}),
        backend("b"),
    ]))
    assert ["a", "7", "6", "0", "0", "1", "0", "1", "5", "0.5ms", "2ms"] in said
    assert ["b", *["0"] * 8, "-", "-"] in said


def test_tcp_says_nothing_of_requests() -> None:
    text = "\n".join(plain(describe(status({}, [backend("a")]))))
    assert "REQUESTS" not in text
    assert "ANSWERS" not in text
