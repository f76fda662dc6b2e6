"""As many gunicorn processes as the traffic needs, and no request that notices.

    python examples/scale_gunicorn.py --port 8080
    python examples/scale_gunicorn.py --port 8080 --rate 50 --most 8 mysite.wsgi:application

lbcore runs inside this program. Every second the program asks how many requests per second come in,
and starts or ends a gunicorn accordingly: a new one gets traffic once its health check passes, one
that is to end is drained first, so that it has nothing left to lose. Nothing is reloaded.
"""

from __future__ import annotations

import argparse
import itertools
import math
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import lbcore

HERE = Path(__file__).parent
CALM = 5                     # seconds of less traffic before a replica is ended


def application(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """What runs if no other application is named."""
    body = b"hello\n"
    start_response("200 OK", [("Content-Type", "text/plain"),
                              ("Content-Length", str(len(body)))])
    return [body]


class Replicas:
    """The gunicorn processes behind a pool, the newest last."""

    def __init__(self, app: str, directory: Path) -> None:
        self.app = app
        self.directory = directory
        self.numbers = itertools.count(1)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def launch(self) -> tuple[str, str]:
        """Starts a process; returns its name and its address."""
        name = f"replica-{next(self.numbers)}"
        address = f"unix:{self.directory / name}.sock"
        self.running[name] = subprocess.Popen([
            sys.executable, "-m", "gunicorn", f"--bind={address}", f"--pythonpath={HERE}",
            "--worker-class=gthread", "--threads=8", "--graceful-timeout=30",
            "--log-level=warning", self.app])
        return name, address

    def scale(self, pool: lbcore.Pool, wanted: int) -> None:
        """Starts or ends replicas until there are so many."""
        while len(self.running) < wanted:
            name, address = self.launch()
            pool.add(address, name=name, weight=0)   # checked, but not used yet
            pool.wait_healthy(name)
            pool.set_weight(name, 1)
        while len(self.running) > wanted:
            name = next(reversed(self.running))
            pool.retire(name)                        # drained, then idle, then removed
            process = self.running.pop(name)
            process.terminate()
            process.wait()

    def close(self) -> None:
        """Ends all of them, when nobody asks any more."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait()


def main() -> None:
    """Scales until it is told to end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("app", nargs="?", default="scale_gunicorn:application")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, default=100, help="requests/s for one replica")
    parser.add_argument("--most", type=int, default=4, help="replicas")
    asked = parser.parse_args()

    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())

    with tempfile.TemporaryDirectory() as directory:
        replicas = Replicas(asked.app, Path(directory))
        name, address = replicas.launch()
        config = {
            "listener": [{"name": "web", "bind": f"127.0.0.1:{asked.port}", "protocol": "http",
                          "pool": "web"}],
            "pool": {"web": {"balance": "least_conn",
                             "backends": [{"name": name, "address": address}],
                             "health": {"type": "http", "interval": "500ms"}}},
        }
        try:
            with lbcore.Balancer(config) as lb:
                lb.wait_healthy()
                print(f"{lb.url('web')}: 1 replica", flush=True)
                keep_up(lb, replicas, asked.rate, asked.most, over)
        finally:
            replicas.close()                         # lbcore has finished its connections


def keep_up(
    lb: lbcore.Balancer, replicas: Replicas, each: float, most: int, over: threading.Event
) -> None:
    """Follows the traffic, one replica for ``each`` requests per second."""
    pool, calm = lb.pool("web"), 0
    while not over.wait(1.0):
        rate = lb.client.live(window=2).total.requests_per_s or 0
        wanted = min(most, max(1, math.ceil(rate / each)))
        calm = calm + 1 if wanted < len(replicas.running) else 0
        if wanted > len(replicas.running) or calm >= CALM:
            replicas.scale(pool, wanted)
            calm = 0
            print(f"{rate:.0f} requests/s: {wanted} replica(s)", flush=True)


if __name__ == "__main__":
    main()
