"""Python applications behind lbcore: started, replaced, crashed, taken over and ended for real."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator

import pytest

from tests.support.apps_lab import AppsLab, HttpLoad, apps_lab, lives
from tests.support.instance import free_port
from tests.support.lbcore_lab import eventually

WSGI = 'wsgi = "wsgi_app:app"\nworkers = 2\n'
ASGI = 'asgi = "asgi_app:app"\n'
# For broken code: a second worker that imports only then would end the old server, too.
ONE = 'wsgi = "wsgi_app:app"\nworkers = 1\n'


@pytest.fixture
def lab() -> Iterator[AppsLab]:
    with apps_lab() as lab:
        yield lab


@pytest.mark.parametrize("protocol", ["tcp", "http"])
@pytest.mark.parametrize("keys", [WSGI, ASGI], ids=["gunicorn", "uvicorn"])
def test_restart_under_load_loses_no_request(lab: AppsLab, keys: str, protocol: str) -> None:
    lab.protocol = protocol
    lab.app(keys)
    lab.start()
    before = lab.server()
    closing, keeping = HttpLoad(lab), HttpLoad(lab, 2, keep=True)
    closing.until(30)
    lab.edit('"one"', '"two"', "wsgi_app.py" if "wsgi" in keys else "asgi_app.py")
    assert "generation 2" in lab.command("restart", "main").stdout
    closing.until(60)
    eventually(lambda: not lives(before))
    closing.until(30)
    closing.stop()
    keeping.stop()
    assert lab.get().startswith("two")
    assert closing.answers["one"] and closing.answers["two"]


def test_new_code_that_does_not_start_leaves_the_old_serving(lab: AppsLab) -> None:
    lab.app(ONE)
    lab.start()
    before, load = lab.server(), HttpLoad(lab)
    lab.edit('VERSION = "one"', "VERSION = missing_name")
    refused = lab.command("restart", "main", check=False)
    assert refused.returncode == 1
    assert "NameError: name 'missing_name' is not defined" in refused.stderr
    load.until(20)
    load.stop()
    assert lab.server() == before
    assert "NameError" in lab.application()["failed"]["error"]
    assert "NameError" in lab.command("status").stdout
    lab.run.wait_for("app.failed", pool="main")

    lab.edit("missing_name", '"two"')
    lab.command("restart", "main")
    assert lab.get().startswith("two")
    assert lab.application()["failed"] is None


def test_reload_with_other_settings_replaces_the_application_under_load(lab: AppsLab) -> None:
    lab.app(WSGI + 'env = { COLOUR = "red" }')
    lab.start()
    before, load = lab.server(), HttpLoad(lab)
    assert " red " in lab.get()
    lab.app(WSGI + 'env = { COLOUR = "blue" }')
    lab.command("reload")
    assert " blue " in lab.get()
    load.until(20)
    load.stop()
    eventually(lambda: not lives(before))


def test_reload_without_a_change_leaves_the_application_alone(lab: AppsLab) -> None:
    lab.app()
    lab.start()
    before = lab.server()
    lab.app('wsgi = "wsgi_app:app"\nworkers = 2\nstart_timeout = "20s"\nmax_queue = 7')
    lab.command("reload")
    assert lab.server() == before
    assert lab.application()["generation"] == 1


def test_reload_to_settings_that_do_not_start_changes_nothing(lab: AppsLab) -> None:
    lab.app()
    lab.start()
    before = lab.server()
    lab.app('wsgi = "wsgi_app:no_such_callable"')
    refused = lab.command("reload", check=False)
    assert refused.returncode == 1
    assert "no_such_callable" in refused.stderr
    assert lab.server() == before
    assert lab.get().startswith("one")
    eventually(lambda: lab.servers() == [before])


def test_changed_code_replaces_a_watched_application(lab: AppsLab) -> None:
    lab.app(WSGI + "watch = true")
    lab.start()
    load = HttpLoad(lab)
    load.until(10)
    lab.edit('"one"', '"two"')
    lab.run.wait_for("app.code_changed", pool="main")
    lab.run.wait_for("app.replaced", pool="main")
    load.until(20)
    load.stop()
    assert lab.get().startswith("two")


def test_request_in_flight_is_answered_by_the_old_generation(lab: AppsLab) -> None:
    lab.app()
    lab.start()
    before, answers = lab.server(), []
    slow = threading.Thread(target=lambda: answers.append(lab.get("/slow")))
    slow.start()
    eventually(lambda: lab.backend("app")["inflight"] == 1)
    lab.edit('"one"', '"two"')
    lab.command("restart", "main")
    assert lab.get().startswith("two")
    slow.join()
    assert answers[0].startswith("one")
    eventually(lambda: not lives(before))


def test_a_server_that_is_killed_loses_nobody_who_waits(lab: AppsLab) -> None:
    lab.app('wsgi = "wsgi_app:app"')
    lab.start()
    before = lab.server()
    os.killpg(before, signal.SIGKILL)
    load = HttpLoad(lab, 4)              # there is nobody at the socket but lbcore
    lab.run.wait_for("app.ready", count=2)
    load.until(20)
    load.stop()
    assert lab.server() != before
    assert lab.application()["servers"][0]["restarts"] == 1


def test_an_application_that_keeps_ending_gets_no_traffic_until_it_is_mended(
    lab: AppsLab,
) -> None:
    lab.app('wsgi = "wsgi_app:app"\nqueue_timeout = "100ms"')
    lab.start()
    lab.edit('VERSION = "one"', "VERSION = missing_name")
    os.killpg(lab.server(), signal.SIGKILL)
    lab.run.wait_for("backend.state", backend="app", new="down")
    assert lab.exchange()[0] == 503
    backend = lab.backend("app")
    assert "application does not run" in backend["reason"]
    assert "NameError" in lab.application()["servers"][0]["error"]
    lab.edit("missing_name", '"two"')
    lab.run.wait_for("backend.state", backend="app", new="up")
    assert lab.get().startswith("two")


def test_lbcore_starts_beside_an_application_that_does_not(lab: AppsLab) -> None:
    lab.edit('VERSION = "one"', "VERSION = missing_name")
    other, port = lab.side.backend("other"), free_port()
    lab.app('wsgi = "wsgi_app:app"\nqueue_timeout = "100ms"',
            f'[[listener]]\nname = "o"\nbind = "127.0.0.1:{port}"\npool = "other"\n'
            f'[pool.other]\nbackends = ["{other}"]')
    lab.start()
    with lab.connect(port) as sock:
        assert sock.recv(6) == b"other\n"
    assert lab.exchange()[0] == 503
    assert "missing_name" in lab.application()["servers"][0]["error"]
    lab.edit("missing_name", "misspelt_name")
    eventually(lambda: "misspelt_name" in lab.application()["servers"][0]["error"])
    lab.edit("misspelt_name", '"two"')
    lab.run.wait_for("app.ready")
    assert lab.get().startswith("two")
    assert lab.application()["failed"] is None       # nothing was replaced


def test_supervisor_killed_and_started_again_goes_on_with_the_same_server(lab: AppsLab) -> None:
    lab.app(WSGI, workers=2)
    lab.start()
    before, load = lab.server(), HttpLoad(lab)
    load.until(20)
    lab.signal(signal.SIGKILL)
    lab.run.wait()
    load.until(20)
    lab.start()
    lab.run.wait_for("app.adopted", goes_on=True)
    load.until(20)
    assert lab.server() == before
    lab.edit('"one"', '"two"')
    lab.command("restart", "main")
    load.until(20)
    load.stop()
    assert lab.get().startswith("two")
    eventually(lambda: not lives(before))


def test_supervisor_started_with_other_settings_replaces_what_it_found(lab: AppsLab) -> None:
    lab.app(WSGI + 'env = { COLOUR = "red" }')
    lab.start()
    before, load = lab.server(), HttpLoad(lab)
    load.until(10)
    lab.signal(signal.SIGKILL)
    lab.run.wait()
    lab.app(WSGI + 'env = { COLOUR = "blue" }')
    lab.start()
    eventually(lambda: " blue " in lab.get())
    eventually(lambda: not lives(before))
    load.until(10)
    load.stop()


def test_an_adopted_server_that_dies_is_replaced(lab: AppsLab) -> None:
    lab.app('wsgi = "wsgi_app:app"')
    lab.start()
    lab.signal(signal.SIGKILL)
    lab.run.wait()
    lab.start()
    before = lab.server()
    os.killpg(before, signal.SIGKILL)
    lab.run.wait_for("app.ready", count=2)
    assert lab.get().startswith("one")
    assert lab.server() != before


@pytest.mark.parametrize("what", ["killed", "upgraded"])
def test_a_replacement_under_way_is_given_up_with_its_supervisor(lab: AppsLab, what: str) -> None:
    lab.app(ONE + 'stop_timeout = "1s"')
    lab.start()
    before, load = lab.server(), HttpLoad(lab, 3)
    lab.edit("VERSION = ", "time.sleep(60)\nVERSION = ")
    restart = threading.Thread(target=lab.command, args=("restart", "main"),
                               kwargs={"check": False})
    restart.start()
    new = lab.run.wait_for("app.started", count=2)["pid"]
    if what == "killed":
        lab.signal(signal.SIGKILL)
        lab.run.wait()
        lab.start()
    else:
        lab.command("upgrade")
    restart.join()
    eventually(lambda: not lives(new))
    assert lab.server() == before
    load.until(10)
    load.stop()
    assert lab.servers() == [before]


def test_an_adopted_application_gets_the_instance_back_that_it_lost(lab: AppsLab) -> None:
    lab.app('asgi = "asgi_app:app"\ninstances = 2')
    lab.start()
    kept, lost = (one["pid"] for one in lab.application()["servers"])
    lab.signal(signal.SIGKILL)
    lab.run.wait()
    os.killpg(lost, signal.SIGKILL)
    lab.start()
    found = [one["pid"] for one in lab.application()["servers"]]
    assert found[0] == kept
    assert found[1] not in (lost, None)
    assert {one["state"] for one in lab.application()["servers"]} == {"ready"}


def test_output_of_an_application_does_not_need_a_supervisor(lab: AppsLab) -> None:
    lab.edit("    if path ==", '    print("x" * 5000, flush=True)\n    if path ==')
    lab.app('wsgi = "wsgi_app:app"')
    lab.start()
    lab.get()
    lab.run.wait_for("app.output", message="x" * 1024 + "...")
    lab.signal(signal.SIGKILL)
    lab.run.wait()
    for _ in range(400):                 # two megabytes: more than any pipe holds
        assert lab.get().startswith("one")


def test_upgrade_leaves_the_application_running(lab: AppsLab) -> None:
    lab.app(WSGI)
    lab.start()
    before, load = lab.server(), HttpLoad(lab)
    lab.command("upgrade")
    load.until(20)
    load.stop()
    assert lab.server() == before
    os.killpg(before, signal.SIGKILL)    # its socket went over the upgrade too
    load = HttpLoad(lab, 4)
    lab.run.wait_for("app.ready", count=3)
    lab.command("restart", "main")
    load.until(20)
    load.stop()


def test_stop_answers_what_is_under_way_and_leaves_nothing(lab: AppsLab) -> None:
    lab.app()
    lab.start()
    pids, answers = lab.servers(), []
    slow = threading.Thread(target=lambda: answers.append(lab.get("/slow")))
    slow.start()
    eventually(lambda: lab.backend("app")["inflight"] == 1)
    lab.signal(signal.SIGTERM)
    slow.join()
    assert answers[0].startswith("one")
    assert lab.run.wait() == 0
    assert not any(lives(pid) for pid in pids)
    assert not lab.runtime_dir.exists()


def test_interrupt_ends_an_application_that_does_not_want_to(lab: AppsLab) -> None:
    lab.edit("VERSION = ",
             "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nVERSION = ")
    lab.app('asgi = "asgi_app:app"\nserver = "hypercorn"')
    lab.start()
    pids = lab.servers()
    assert lab.stop() == 0
    assert not any(lives(pid) for pid in pids)


def test_an_application_that_leaves_the_configuration_ends(lab: AppsLab) -> None:
    lab.app()
    lab.start()
    before = lab.server()
    lab.app(f'backends = ["{lab.side.backend("other")}"]')
    lab.command("reload")
    eventually(lambda: not lives(before))
    assert lab.servers() == []


def test_instances_are_backends_among_which_lbcore_balances(lab: AppsLab) -> None:
    lab.app('asgi = "asgi_app:app"\ninstances = 3')
    lab.start()
    assert len({lab.get().split()[-2] for _ in range(6)}) == 3
    lab.command("drain", "main/app-2")
    assert len({lab.get().split()[-2] for _ in range(6)}) == 2


@pytest.mark.parametrize("keys", [
    'wsgi = "wsgi_app:app"\nthreads = 4',
    'wsgi = "wsgi_app:app"\nserver = "granian"\nthreads = 2',
    'wsgi = "wsgi_app:app"\nserver = "hypercorn"',
    'asgi = "asgi_app:app"\nworkers = 2',
    'asgi = "asgi_app:app"\nserver = "granian"\nworkers = 2',
    'asgi = "asgi_app:app"\nserver = "hypercorn"',
    'asgi = "asgi_app:app"\nserver = "daphne"',
])
def test_every_server_serves_and_is_replaced_under_load(lab: AppsLab, keys: str) -> None:
    lab.app(keys)
    lab.start()
    if lab.application()["server"] in ("uvicorn", "daphne"):
        assert lab.get("/client") == "127.0.0.1 http"
    before, load = lab.server(), HttpLoad(lab, 3)
    load.until(10)
    lab.command("restart", "main")
    eventually(lambda: not lives(before))
    load.until(10)
    load.stop()
    assert lab.stop() == 0
    assert not lab.runtime_dir.exists()
    assert not [event for event in lab.run.logged("app.output") if "GET / " in event["message"]]


def python_of_everybody() -> str:
    """A Python that any user may run, of the version that our packages are for."""
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):       # in somebody's home, or not there
            asked = subprocess.run(
                [python, "-c", "import sys; print(sys.version_info[:2])"], user="nobody",
                capture_output=True, text=True, check=False, cwd="/")
            if asked.stdout.strip() == str(sys.version_info[:2]):
                return python
    pytest.skip("only root can become somebody else, with a Python that others may run")


@pytest.mark.parametrize("server", ["gunicorn", "granian"])
def test_the_application_runs_as_its_user(lab: AppsLab, server: str) -> None:
    lab.directory.chmod(0o755)
    lab.app(f'wsgi = "wsgi_app:app"\nserver = "{server}"\nuser = "nobody"\n'
            f'python = "{python_of_everybody()}"\n'
            f'env = {{ PYTHONPATH = "{sysconfig.get_path("purelib")}" }}')
    lab.start()
    assert lab.get().split()[-1] == "65534"
    lab.command("restart", "main")
    assert lab.get().split()[-1] == "65534"


@pytest.mark.parametrize("server", ["gunicorn", "granian"])
def test_workers_reach_an_application_of_another_user_and_nobody_else_does(
    lab: AppsLab, server: str
) -> None:
    python = python_of_everybody()
    lab.directory.chmod(0o755)
    lab.app(f'wsgi = "wsgi_app:app"\nserver = "{server}"\nuser = "nobody"\npython = "{python}"\n'
            f'env = {{ PYTHONPATH = "{sysconfig.get_path("purelib")}" }}')
    text = lab.config.read_text().replace("[lbcore]\n", '[lbcore]\nuser = "daemon"\n')
    lab.config.write_text(text)
    lab.start()
    assert lab.get().split()[-1] == "65534"
    (path,) = [path for path in lab.runtime_dir.rglob("*") if path.name.startswith(("app-", "sock"))
               and path.is_socket()]
    tried = subprocess.run(
        [python, "-c", f"import socket; socket.socket(socket.AF_UNIX).connect({str(path)!r})"],
        user="games", group="games", extra_groups=[], capture_output=True, text=True, check=False,
        cwd="/")
    assert "PermissionError" in tried.stderr


def test_a_server_that_is_not_installed_is_named_with_the_remedy(lab: AppsLab) -> None:
    lab.app('wsgi = "wsgi_app:app"\npython = "/usr/bin/python3"')
    lab.start()
    error = lab.application()["servers"][0]["error"]
    assert "gunicorn is not installed for /usr/bin/python3" in error
    assert "pip install gunicorn" in error
