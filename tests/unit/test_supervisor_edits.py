"""What people ask to be changed: what is refused, what comes of it, what another file leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lbcore.admin import ControlError
from lbcore.config import ConfigError
from lbcore.supervisor.changes import Change, Found, Overlay, name_of
from lbcore.supervisor.edits import Edit
from lbcore.supervisor.fitting import compiled, fitting
from lbcore.supervisor.kept import of_state
from lbcore.supervisor.settings import Read, read_text

HEAD = """
[lbcore]
workers = 2
[[listener]]
name = "main"
bind = "127.0.0.1:8080"
protocol = "http"
pool = "web"
  [[listener.route]]
  path = "/app"
  pool = "app"
  [[listener.route]]
  path = "/demo"
  pool = "show"
[pool.app]
wsgi = "site:application"
[pool.show]
demo = 2
"""
WEB = """[pool.web]
backends = ["10.0.0.1:80", { address = "10.0.0.2:80", name = "b", weight = 3 }]
"""
OWN = {"app": ["app"], "show": ["demo-1", "demo-2"]}


def file(web: str = WEB, head: str = HEAD) -> Read:
    """A configuration."""
    return read_text(head + web, Path("/etc/lb.toml"))


FILE = file()


def edit(overlay: Overlay | None = None) -> Edit:
    """An edit of that."""
    return Edit(overlay or Overlay(), FILE.tables, OWN, ["app"])


def refusal(work: Any, *arguments: Any) -> int:
    """The status with which it is refused."""
    with pytest.raises(ControlError) as error:
        work(*arguments)
    return error.value.status


def overlay(*asked: tuple[Any, ...]) -> Overlay:
    """After these."""
    work = edit()
    for what, *arguments in asked:
        getattr(work, what)(*arguments)
    return work.done()


def ops(found: Overlay) -> list[tuple[str, str]]:
    """What differs."""
    return [(one.op, one.backend) for one in found.changes.values()]


def test_what_makes_no_sense_is_refused_by_its_kind() -> None:
    work = edit()
    assert refusal(work.add, "none", {"address": "10.0.0.9:80"}) == 404
    assert refusal(work.add, "web", {"address": "10.0.0.1:80"}) == 409
    assert refusal(work.add, "web", {"address": "10.0.0.9:80", "name": "b"}) == 409
    assert refusal(work.add, "web", 5) == 400
    assert refusal(work.add, "show", {"address": "10.0.0.9:80", "name": "demo-1"}) == 409
    assert refusal(work.add, "app", {"address": "10.0.0.9:80"}) == 409
    assert refusal(work.replace, "app", ["10.0.0.9:80"]) == 409
    assert refusal(work.remove, "web", "c") == 404
    assert refusal(work.remove, "show", "demo-1") == 409
    assert refusal(work.patch, "web", "b", {"colour": "red"}) == 400
    assert refusal(work.patch, "web", "b", {"weight": 1001}) == 400
    assert refusal(work.patch, "web", "b", {"weight": True}) == 400
    assert refusal(work.patch, "web", "b", {"drain": 1}) == 400
    assert refusal(work.patch, "web", "b", {"force": "sideways"}) == 400
    assert refusal(work.patch, "show", "demo-1", {"max_connections": 5}) == 409
    assert refusal(work.one, {"op": "melt", "pool": "web"}) == 400
    assert refusal(work.one, {"op": "drain", "pool": "web", "backend": "b"}) == 400
    work.remove("web", "b")
    assert refusal(work.remove, "web", "10.0.0.1:80") == 409
    assert work.done().changes.keys() == {("backend", "web", "b")}


def test_the_last_weight_of_what_lbcore_runs_itself_cannot_be_taken() -> None:
    work = edit()
    assert refusal(work.patch, "app", "app", {"weight": 0}) == 422
    work.patch("show", "demo-1", {"weight": 0})
    assert refusal(work.patch, "show", "demo-2", {"weight": 0}) == 422
    work.patch("show", "demo-1", {"weight": 2})
    work.patch("show", "demo-2", {"weight": 0})
    work.add("show", {"address": "10.0.0.9:80"})
    work.patch("show", "demo-1", {"weight": 0})


def test_a_pool_with_demonstration_servers_may_lose_its_last_own_backend() -> None:
    found = overlay(("add", "show", "10.0.0.9:80"))
    work = edit(found)
    work.remove("show", "10.0.0.9:80")
    assert ops(work.done()) == []


def test_several_requests_of_one_edit_see_each_other() -> None:
    found = overlay(
        ("add", "web", {"address": "10.0.0.9:80", "name": "new"}),
        ("patch", "web", "new", {"drain": True, "max_connections": 7}),
        ("remove", "web", "b"), ("remove", "web", "10.0.0.1:80"))
    assert ops(found) == [("add", "new"), ("drain", "new"), ("remove", "b"),
                          ("remove", "10.0.0.1:80")]
    assert found.backends(FILE.tables, "web") == [
        {"address": "10.0.0.9:80", "name": "new", "max_connections": 7}]


@pytest.mark.parametrize(("there", "back"), [
    (("remove", "web", "b"), ("add", "web", {"address": "10.0.0.2:80", "name": "b", "weight": 3,
                                             "backup": False})),
    (("add", "web", "10.0.0.9:80"), ("remove", "web", "10.0.0.9:80")),
    (("patch", "web", "b", {"weight": 9}), ("patch", "web", "b", {"weight": None})),
    (("patch", "web", "b", {"weight": 9}), ("patch", "web", "b", {"weight": 3})),
    (("patch", "web", "b", {"drain": True}), ("patch", "web", "b", {"drain": False})),
    (("patch", "web", "b", {"force": "up"}), ("patch", "web", "b", {"force": None})),
    (("patch", "web", "b", {"max_connections": 9}), ("patch", "web", "b",
                                                     {"max_connections": None})),
    (("setting", "workers", 3), ("setting", "workers", 2)),
    (("setting", "log_level", "debug"), ("setting", "log_level", None)),
    (("replace", "web", ["10.0.0.9:80"]), ("replace", "web", [
        "10.0.0.1:80", {"address": "10.0.0.2:80", "name": "b", "weight": 3}])),
])
def test_what_is_as_in_the_file_again_is_no_difference(
    there: tuple[Any, ...], back: tuple[Any, ...],
) -> None:
    assert ops(overlay(there)) != []
    assert ops(overlay(there, back)) == []


def test_removing_a_backend_ends_what_was_ordered_of_it() -> None:
    found = overlay(("patch", "web", "b", {"weight": 9, "drain": True, "force": "up"}),
                    ("remove", "web", "b"))
    assert ops(found) == [("remove", "b")] and found.orders() == {}


def test_a_change_that_says_the_same_again_keeps_its_time() -> None:
    first = overlay(("patch", "web", "b", {"weight": 9}))
    old = Change("weight", "web", "b", 3, 9, "2020-01-01T00:00:00Z")
    work = edit(Overlay({old.key: old}))
    work.patch("web", "b", {"weight": 9})
    assert work.done().changes[old.key] is old
    assert first.changes[old.key].as_json() | {"since": ""} == {
        "op": "weight", "pool": "web", "backend": "b", "file": 3, "running": 9, "since": ""}


def test_types_are_not_guessed() -> None:
    """True is no weight of 1, though Python has them equal."""
    found = overlay(("replace", "web", [{"address": "10.0.0.1:80", "weight": True}]))
    with pytest.raises(ConfigError):
        compiled(FILE, found)


def test_what_no_file_may_say_is_found_when_it_is_compiled() -> None:
    for table in ({"address": "10.0.0.9"}, {"name": "x"}, {"address": "10.0.0.9:80", "colour": 1},
                  {"address": "127.0.0.1:8080"}):
        with pytest.raises(ConfigError) as error:
            compiled(FILE, overlay(("add", "web", table)))
        assert str(error.value.problems[0]).startswith("the running configuration: pool.web.back")


def test_plan_has_configured_weights_and_configuration_those_in_force() -> None:
    plan, config = compiled(FILE, overlay(("patch", "web", "b", {"weight": 9})))
    web = next(pool for pool in plan.pools if pool.name == "web")
    assert [one.weight for one in web.backends] == [1, 3]
    assert [one.weight for one in config.pool["web"].backends] == [1, 9]


def test_what_a_source_has_found_takes_the_place_of_the_file_and_is_no_change() -> None:
    found = Overlay().with_found("web", Found("watched file", ({"address": "10.0.0.7:80"},)))
    assert found.source("web") == "watched file" and not found.changes
    assert [name_of(one) for one in found.backends(FILE.tables, "web")] == ["10.0.0.7:80"]
    work = edit(found)
    work.add("web", "10.0.0.1:80")       # of the file, which does not count now
    assert ops(work.done()) == [("add", "10.0.0.1:80")] and work.done().source("web") == "api"
    work.patch("web", "10.0.0.7:80", {"max_connections": 3})
    assert [dict(one) for one in work.done().applied(FILE.tables)["pool"]["web"]["backends"]] == [
        {"address": "10.0.0.7:80", "max_connections": 3}, {"address": "10.0.0.1:80"}]


ALL = (("add", "web", {"address": "10.0.0.9:80", "name": "new"}), ("remove", "web", "10.0.0.1:80"),
       ("patch", "web", "b", {"weight": 9, "drain": True, "max_connections": 4}),
       ("patch", "show", "demo-2", {"force": "down"}), ("setting", "workers", 4))


@pytest.mark.parametrize(("web", "head", "gone"), [
    (WEB, HEAD, {}),
    ('[pool.web]\nbackends = ["10.0.0.1:80", "10.0.0.8:80"]\n', HEAD, {
        ("set", "b"): "the backend is gone", ("weight", "b"): "the backend is gone",
        ("drain", "b"): "the backend is gone"}),
    ('[pool.web]\nbackends = [{ address = "10.0.0.2:80", name = "b", weight = 9, '
     'max_connections = 4 }, { address = "10.0.0.9:80", name = "new" }]\n', HEAD, {
         ("add", "new"): "the file says the same now",
         ("remove", "10.0.0.1:80"): "the file does not have it any more",
         ("set", "b"): "the file says the same now",
         ("weight", "b"): "the file says the same now"}),
    (WEB, HEAD.replace("demo = 2", "demo = 1"), {("force", "demo-2"): "the backend is gone"}),
    (WEB, HEAD.replace("workers = 2", "workers = 3"), {
        ("workers", ""): "the file says something new"}),
    (WEB, HEAD.replace("workers = 2", "workers = 4"), {
        ("workers", ""): "the file says the same now"}),
    (WEB.replace("pool.web", "pool.other"), HEAD.replace('"web"', '"other"'), {
        (op, name): "the pool is gone" for op, name in (
            ("add", "new"), ("remove", "10.0.0.1:80"), ("set", "b"), ("weight", "b"),
            ("drain", "b"))}),
])
def test_another_file_keeps_what_still_applies(
    web: str, head: str, gone: dict[tuple[str, str], str],
) -> None:
    before = overlay(*ALL)
    _, _, after, dropped = fitting(file(web, head), before)
    assert {(one.op, one.backend): reason for one, reason in dropped} == gone
    assert set(ops(after)) == set(ops(before)) - set(gone)


def test_file_that_is_good_by_itself_wins_over_changes_that_do_not_go_with_it() -> None:
    before = overlay(("remove", "web", "10.0.0.1:80"), ("setting", "workers", 4))
    only = file('[pool.web]\nbackends = ["10.0.0.1:80"]\n')
    plan, _, after, dropped = fitting(only, before)
    assert [one.op for one, _ in dropped] == ["remove"] and ops(after) == [("workers", "")]
    assert [one.name for pool in plan.pools if pool.name == "web" for one in pool.backends] == [
        "10.0.0.1:80"]


def test_sources_end_with_their_key_in_the_file() -> None:
    found = Overlay().with_found("web", Found("watched file", ({"address": "10.0.0.7:80"},)))
    assert fitting(FILE, found)[2].found == {}


def test_a_file_without_pools_ends_what_was_of_pools() -> None:
    redirects = read_text("""
[[listener]]
name = "web"
bind = "127.0.0.1:1"
protocol = "http"
[[listener.route]]
name = "all"
path = "/"
redirect = "https://example.com/"
""", Path("/etc/lb.toml"))
    found = overlay(*ALL).with_found("web", Found("file", ({"address": "10.0.0.7:80"},)))
    plan, _, after, _ = fitting(redirects, found)
    assert plan.pools == () and after.found == {}
    assert not any(one.pool for one in after.changes.values())


@pytest.mark.parametrize("state", [
    None, 5, {}, {"changes": 5}, {"changes": [5, ["melt"], ["add", "web", "b", None, 5, "now"],
                                              ["melt", "", "", 1, 2, "now"]]},
    {"found": {"web": 5}}, {"found": {"web": ["file", [5]]}}, {"found": [1]}])
def test_nonsense_that_was_kept_is_left_out(state: Any) -> None:
    assert Overlay.restore(state) == Overlay()


def test_orders_that_an_earlier_version_handed_over_are_changes() -> None:
    state = {"started": "2026-01-01T00:00:00Z", "weights": [["web", "b", 9]],
             "health": {"pools": {"web": {"b": {"draining": True},
                                          "10.0.0.1:80": {"draining": False}}}}}
    found = fitting(FILE, Overlay.restore(of_state(state)))[2]
    assert set(ops(found)) == {("weight", "b"), ("drain", "b")}
    assert found.changes["weight", "web", "b"].file == 3
    assert of_state({"changes": {"changes": []}}) == {"changes": []}
