"""What is dangerous about a configuration on this machine: limits, permissions, users.

Only what can be seen from here: files of other machines, and limits that the service manager sets
for lbcore, are not known to who runs ``lbcore check``.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from lbcore.config.findings import Finding
from lbcore.config.http_models import Auth, Route
from lbcore.config.models import Config, Listener
from lbcore.config.plan import Plan
from lbcore.config.problems import KeyPath
from lbcore.config.values import parse_listen

NR_OPEN = Path("/proc/sys/fs/nr_open")
RESERVED = 64                # descriptors that a worker keeps free (supervisor/limits.py)
STATUS = Path("/proc/self/status")
NET_BIND_SERVICE = 10        # the numbers of capabilities: linux/capability.h
SYS_RESOURCE = 24


def dangers(config: Config, plan: Plan, file: str) -> Iterator[Finding]:
    """What is dangerous here. ``file`` is the configuration's."""
    yield from _users(config)
    yield from _descriptors(config, plan)
    yield from _files(config, plan, file)
    yield from _directories(config)


def _users(config: Config) -> Iterator[Finding]:
    if os.geteuid() != 0:
        return
    if not config.lbcore.user:
        yield Finding(("lbcore", "user"), "workers, which talk to everybody, run as root",
                      'user = "lbcore", or start lbcore as an ordinary user',
                      code="root-without-user")
    for name, pool in config.pool.items():
        if (pool.wsgi or pool.asgi) and not pool.user:
            yield Finding(("pool", name, "user"), f'the application of pool "{name}" runs as root',
                          'user = "www-data", or another that owns nothing', code="app-as-root")


def _directories(config: Config) -> Iterator[Finding]:
    """Where something is to be written and nothing can be made.

    No error: a service manager may make them (systemd's LogsDirectory=), but only at the start.
    """
    for section, key, path in (("log", "path", config.log.path),
                               ("log", "access", config.log.access or ""),
                               ("lbcore", "pid_file", config.lbcore.pid_file)):
        if not path.startswith("/"):
            continue                     # standard output, the journal, nothing
        directory = Path(path).parent
        try:
            there = stat.S_ISDIR(directory.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            there = False
        except OSError:                  # this user may not look: lbcore's may
            continue
        if not there:
            yield Finding((section, key),
                          f"there is no directory {directory}, and lbcore makes none",
                          f"mkdir -p {directory}", code="no-directory")


def capable(capability: int) -> bool:
    """Whether this process has a capability. In a container not even root has all of them."""
    try:
        status = STATUS.read_text()
    except OSError:
        return False
    effective = next((line for line in status.splitlines() if line.startswith("CapEff:")), ":0")
    return bool(int(effective.partition(":")[2], 16) >> capability & 1)


def descriptor_limit() -> int:
    """Descriptors that a process of lbcore may have when this user starts it from here."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        most = int(NR_OPEN.read_text())
    except (OSError, ValueError):
        return hard
    return max(hard, most) if capable(SYS_RESOURCE) else hard


def _descriptors(config: Config, plan: Plan) -> Iterator[Finding]:
    limit = descriptor_limit()
    sockets = sum(len(listener.bind) for listener in config.listener)
    room = max(0, limit - RESERVED - sockets) // 2 * plan.workers
    wanted = sum(listener.max_connections for listener in config.listener)
    if wanted <= room:
        return
    largest = max(range(len(config.listener)), key=lambda i: config.listener[i].max_connections)
    needed = -(-wanted // plan.workers) * 2 + RESERVED + sockets
    yield Finding(
        ("listener", largest, "max_connections"),
        f"{wanted:,} connections are more than the {room:,} for which {plan.workers} worker(s) "
        f"may have descriptors: {limit:,} each",
        f"LimitNOFILE={needed} in the unit, or `ulimit -n {needed}`", code="descriptor-limit")


def _files(config: Config, plan: Plan, file: str) -> Iterator[Finding]:
    told: set[Path] = set()
    here = Path(os.path.abspath(file))      # noqa: PTH100  (keep the user's links)
    yield from _writable((), here, told, "lb.toml")
    secret = _secret(config)
    if secret and _mode(here) & stat.S_IROTH:
        yield Finding(secret, f"every user of this machine can read this: {here} is open to all",
                      f"chmod o-r {here}", code="readable-by-others")
    for path, name, what in (*_named(config), *_carried_out(plan, here.parent)):
        yield from _writable(path, Path(name), told, what)


def _writable(path: KeyPath, file: Path, told: set[Path], what: str) -> Iterator[Finding]:
    """What of a file that lbcore relies on everybody may change, or put another in place of."""
    for place in (file, file.parent):
        mode = _mode(place)
        # In a sticky directory only a file's owner can replace it.
        replaceable = mode & stat.S_IWOTH and not (place != file and mode & stat.S_ISVTX)
        if replaceable and place not in told and not stat.S_ISSOCK(mode):
            told.add(place)
            yield Finding(path, f"every user of this machine can write to {place}, and so change "
                          f"{what}", f"chmod o-w {place}", code="writable-by-others")


def _mode(place: Path) -> int:
    try:
        return place.stat().st_mode
    except OSError:          # not there yet, or not for us to see
        return 0


def _secret(config: Config) -> KeyPath | None:
    """A key of the file that nobody but lbcore should know."""
    for name, pool in config.pool.items():
        if pool.sticky is not None and pool.sticky.secret:
            return ("pool", name, "sticky", "secret")
    for path, auth in _auths(config):
        if auth.users:
            return (*path, "users")
    return None


def _auths(config: Config) -> Iterator[tuple[KeyPath, Auth]]:
    for index, listener in enumerate(config.listener):
        tables: list[tuple[KeyPath, Listener | Route]] = [
            (("listener", index), listener),
            *((("listener", index, "route", n), route) for n, route in enumerate(listener.route))]
        yield from (((*at, "auth"), table.auth) for at, table in tables if table.auth)


def _named(config: Config) -> Iterator[tuple[KeyPath, str, str]]:
    """Files and sockets that a configuration names, and what they are."""
    if config.admin.token_file:
        yield ("admin", "token_file"), config.admin.token_file, "who controls lbcore"
    for key in ("path", "access"):
        name = getattr(config.log, key)
        if name and name.startswith("/"):
            yield ("log", key), name, "what was logged"
    for path, auth in _auths(config):
        if auth.users_file:
            yield (*path, "users_file"), auth.users_file, "who may enter"
    for index, listener in enumerate(config.listener):
        for status, files in listener.error_pages.items():
            yield from ((("listener", index, "error_pages", status), name, "an error page")
                        for name in files)
        for number, route in enumerate(listener.route):
            if route.respond and route.respond.file:
                yield (("listener", index, "route", number, "respond", "file"),
                       route.respond.file, "an answer")
        for number, text in enumerate(listener.bind):
            if name := parse_listen(text).path:
                yield ("listener", index, "bind", number), name, "who gets its connections"


def _carried_out(plan: Plan, here: Path) -> Iterator[tuple[KeyPath, str, str]]:
    """Where the code is that lbcore runs, and who says where a pool's traffic goes."""
    for pool in plan.pools:
        if pool.app:
            directory = str(here / pool.app.directory)
            yield ("pool", pool.name, "directory"), directory, "the code that it runs"
        if pool.discover and pool.discover.file:
            yield (("pool", pool.name, "discover", "file"), pool.discover.file,
                   "where its requests go")
        elif pool.discover:
            yield (("pool", pool.name, "discover", "directory"), pool.discover.directory,
                   "the code that it runs")
