"""schemathesis reads the API's own document and holds a running instance to it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbcore.admin.operations import OPERATIONS
from lbcore.admin.server import AdminServer
from lbcore.config.plan import AdminPlan
from tests.support.fake_control import FakeControl
from tests.support.instance import Instance, free_port, instance
from tests.support.instance import until as wait_until

TOKEN = "schemathesis-may-do-everything"
# What would end the instance, or start 64 workers for nothing, is asked of one that is none.
DRASTIC = {"stop", "upgrade", "set_workers"}
UNJUDGED = {"stream", "openapi"}         # has no end; schemathesis leaves its own source out
CONFIG = Path(__file__).parents[1] / "support" / "schemathesis.toml"


def judge(port: int, directory: Path, names: set[str]) -> None:
    """Lets schemathesis try these operations with everything it can think of."""
    wanted = [word for name in sorted(names) for word in ("--include-operation-id", name)]
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run",
        f"http://127.0.0.1:{port}/v1/openapi.json", "--header", f"Authorization: Bearer {TOKEN}",
        "--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", "5",
        "--generation-deterministic", "--continue-on-failure",
        "--no-shrink", "--suppress-health-check", "all", "--no-color", *wanted]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=280,
                          check=False, env=os.environ | {"NO_PROXY": "*"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Tested: {len(names)}\n" in done.stdout


@pytest.fixture
def made_up() -> Iterator[int]:
    """The port of an instance that survives everything, being none."""
    ready, port, over = threading.Event(), [0], asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = AdminServer(FakeControl(), AdminPlan(TOKEN))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            await server.start(listening)
            port[0] = listening.getsockname()[1]
            ready.set()
            await over.wait()
            await server.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait()
    yield port[0]
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


@pytest.fixture
def running() -> Iterator[tuple[Instance, int]]:
    """A real instance whose admin address is a TCP address with a token."""
    port = free_port()
    with instance() as made:
        token = made.directory / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        made.file["admin"] = {"listen": f"127.0.0.1:{port}", "token_file": str(token)}
        made.file["log"] = {"level": "warning", "format": "json"}
        made.file["listener"] = [
            {"name": "main", "bind": f"127.0.0.1:{made.port}", "protocol": "http", "pool": "0",
             "route": [{"path": "/api/", "pool": "api"}]}]
        made.file["pool"] = {         # 0 is what schemathesis takes for a name first
            "0": {"demo": 1, "backends": [{"address": "127.0.0.1:9", "name": "0"},
                                          {"address": "127.0.0.1:10"}]},
            "api": {"backends": ["127.0.0.1:9", "127.0.0.1:10"],
                    "health": {"interval": "500ms"}}}
        made.write()
        made.start(wait=False)
        wait_until(lambda: _answers(port), "the admin address answers")
        yield made, port


def _answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_drastic_operations_take_what_the_document_says_and_nothing_else(
    made_up: int, tmp_path: Path,
) -> None:
    judge(made_up, tmp_path, DRASTIC)


def test_running_instance_answers_as_its_document_says(
    running: tuple[Instance, int], tmp_path: Path,
) -> None:
    made, port = running
    judge(port, tmp_path, {one.name for one in OPERATIONS} - DRASTIC - UNJUDGED)
    assert made.complaints() == []
    assert made.process is not None and made.process.poll() is None
