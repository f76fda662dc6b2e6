"""A resolver that takes its time: who looks names up waits for it, and nobody else does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lbcore.admin.calls import AdminError
from tests.support.instance import ROOT, Instance, instance, until

# In the place of the system's resolver: a name has an address when there is a file of the name.
SLOW = '''
import os, socket, time

true = socket.getaddrinfo

def look_up(host, *words, **more):
    if isinstance(host, str) and host.endswith(".slow"):
        open(f"asked-{host}", "w").close()
        while not os.path.exists(f"known-{host}"):
            time.sleep(0.01)
        host = open(f"known-{host}").read()
    return true(host, *words, **more)

socket.getaddrinfo = look_up
'''


@pytest.fixture
def box() -> Iterator[Instance]:
    with instance() as made:
        (made.directory / "sitecustomize.py").write_text(SLOW)
        made.pool["backends"] = ["127.0.0.1:1", "127.0.0.1:2"]
        made.write()
        made.start(environment={"PYTHONPATH": f"{made.directory}{os.pathsep}{ROOT}"})
        yield made


@contextmanager
def waiting(box: Instance, host: str, ask: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Somebody who asks for something and waits for a name; it is known in the end."""
    with ThreadPoolExecutor() as beside:
        asked = beside.submit(ask)
        try:
            until((box.directory / f"asked-{host}").exists, "a question to the resolver")
            assert not asked.done()
            yield asked
        finally:
            answer(box.directory, host)


def answer(directory: Path, host: str, address: str = "127.0.0.3") -> None:
    """What the resolver says from now on."""
    fresh = directory / "fresh"
    fresh.write_text(address)
    fresh.rename(directory / f"known-{host}")


def backends(box: Instance) -> dict[str, Any]:
    """The backends of the pool by name."""
    return {one["name"]: one for one in box.status()["pools"][0]["backends"]}


def test_orders_do_not_wait_for_a_reload_that_looks_names_up_and_stay(box: Instance) -> None:
    box.pool["backends"] = ["127.0.0.1:1", "127.0.0.1:2", "new.slow:3"]
    box.write()
    with waiting(box, "new.slow", box.admin.reload) as reload:
        box.admin.drain("main", "127.0.0.1:1")
        box.admin.weight("main", "127.0.0.1:2", 7)
        box.admin.force("main", "127.0.0.1:1", "down")
        box.admin.drain("main", "127.0.0.1:2")
        box.admin.undrain("main", "127.0.0.1:2")
        assert not reload.done()
    assert reload.result()["dropped"] == []
    found = backends(box)
    assert list(found) == ["127.0.0.1:1", "127.0.0.1:2", "new.slow:3"]
    assert found["127.0.0.1:1"]["draining"]
    assert found["127.0.0.1:1"]["forced"] == "down"
    assert found["127.0.0.1:2"]["weight"] == 7


def test_orders_do_not_wait_for_a_new_backend_whose_name_is_looked_up(box: Instance) -> None:
    with waiting(box, "new.slow", lambda: box.admin.add("main", {"address": "new.slow:3"})) as add:
        box.admin.drain("main", "127.0.0.1:1")
        box.admin.remove("main", "127.0.0.1:2")
        assert not add.done()
    assert add.result()["name"] == "new.slow:3"
    assert list(backends(box)) == ["127.0.0.1:1", "new.slow:3"]
    assert backends(box)["127.0.0.1:1"]["draining"]


def test_what_was_expected_is_looked_at_again_after_names_were_looked_up(box: Instance) -> None:
    version = box.status()["plan_version"]
    with waiting(box, "new.slow", lambda: box.admin.add(
            "main", {"address": "new.slow:3"}, expect=version)) as add:
        box.admin.drain("main", "127.0.0.1:1")
    with pytest.raises(AdminError) as refused:
        add.result()
    assert refused.value.status == 412
    assert list(backends(box)) == ["127.0.0.1:1", "127.0.0.1:2"]


def test_a_backend_that_came_meanwhile_is_not_added_twice(box: Instance) -> None:
    new = {"address": "new.slow:3", "name": "new"}
    with waiting(box, "new.slow", lambda: box.admin.add("main", new)) as add:
        box.admin.add("main", {"address": "127.0.0.1:4", "name": "new"})
    with pytest.raises(AdminError, match="has a backend 'new' already"):
        add.result()
    assert backends(box)["new"]["address"] == "127.0.0.1:4"


def test_a_reload_looks_up_what_came_back_into_the_plan_meanwhile(box: Instance) -> None:
    one, two = {"address": "127.0.0.1:1"}, {"address": "127.0.0.1:2", "name": "two"}
    box.pool["backends"] = [one, two]
    box.write()
    box.admin.reload()
    box.admin.remove("main", "two")
    box.pool["backends"] = [one, {**two, "address": "other.slow:2"}, {"address": "new.slow:3"}]
    box.write()
    with waiting(box, "new.slow", box.admin.reload) as reload:
        assert not (box.directory / "asked-other.slow").exists()
        box.admin.forget_changes()
        with waiting(box, "other.slow", lambda: answer(box.directory, "new.slow") or
                     reload.result()):
            box.admin.drain("main", "127.0.0.1:1")
    reload.result()
    found = backends(box)
    assert [one["address"] for one in found.values()] == [
        "127.0.0.1:1", "other.slow:2", "new.slow:3"]
    assert found["127.0.0.1:1"]["draining"]


@pytest.mark.parametrize("how", ["stop", "upgrade"])
def test_who_waits_for_a_name_is_told_when_lbcore_ends_or_is_upgraded(
    box: Instance, how: str
) -> None:
    with waiting(box, "new.slow", lambda: box.admin.add("main", {"address": "new.slow:3"})) as add:
        if how == "stop":
            box.admin.stop()
        else:
            box.admin.upgrade()
        with pytest.raises(AdminError, match=r"is ending|takes over just now"):
            add.result()
        if how == "stop":
            assert box.exit_code() == 0
