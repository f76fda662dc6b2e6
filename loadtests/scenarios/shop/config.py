"""The lb.toml of a shop, and the changed ones that are reloaded over it.

Chats stay and pages do not: by ``least_conn`` whoever has one chat less would be given all the
pages. So the shop has ``round_robin``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..config import Ports, backend_name
from ..stage import TREE, Cast
from ..wire import Life
from .catalog import BURST, GIVE_UP, INSTANCES, RATE

POOL = "shop"
APPLICATION = "loadtests.shop.asgi:application"
COOKIE = "lbcore"
VARIANTS = 5
WEIGHTS = (1, 3, 2)


def command(who: Life, port: int) -> list[str]:
    """An instance of the shop: one process, as a person would run it, but for the names."""
    return [
        "env", f"SHOP_INSTANCE={who.backend}", f"SHOP_LIFE={who.life}",
        f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}",
        sys.executable, "-m", "uvicorn", APPLICATION, "--port", str(port),
        "--no-access-log", "--log-level", "warning", "--backlog", "1024",
        "--timeout-graceful-shutdown", "10",
    ]


def lb_toml(admin: Path, workers: int, ports: Ports, variant: int = 0) -> str:
    """A configuration. Variant 0 is the plain one; each other changes something else, and none of
    them anything that a session may be lost by:

    1 changes weights, 2 adds a listener and a pool, 3 adds routes, and 4 changes how backends are
    picked and what answers bring along.
    """
    kind = variant % VARIANTS
    backends = "\n".join(
        f'  {{ address = "127.0.0.1:{port}", name = "{backend_name(number)}", '
        f"weight = {WEIGHTS[number % len(WEIGHTS)] if kind == 1 else 1} }},"
        for number, port in enumerate(ports.backends, 1))
    text = f"""\
# Configuration {variant} of a shop under load.
[lbcore]
workers = {workers}
drain_timeout = "2s"

[admin]
listen = "unix:{admin}"

[[listener]]
name = "shop"
bind = "127.0.0.1:{ports.listener}"
protocol = "http"
pool = "{POOL}"
trusted_proxies = ["127.0.0.0/8"]       # customers say where they come from
retry = {{ statuses = [503] }}
"""
    if kind == 4:
        text += """
  [listener.response_headers]
  set = { X-Frame-Options = "DENY" }
"""
    text += f"""
  [[listener.route]]
  path_exact = "/search"
  pool = "{POOL}"
  rate_limit = {{ requests = "{RATE}/s", burst = {BURST}, by = "source" }}

  [[listener.route]]
  path_exact = "/instance"              # the switches of an instance are not for customers
  respond = {{ status = 404 }}
"""
    if kind == 3:
        text += f"""
  [[listener.route]]
  path = "/old/"
  redirect = "/article/1"

  [[listener.route]]
  path_regex = "^/article/([0-9]+)$"
  pool = "{POOL}"
"""
    if kind == 2:
        text += f"""
[[listener]]
name = "spare"
bind = "127.0.0.1:{ports.spare}"
protocol = "http"
pool = "spare"

[pool.spare]
backends = ["127.0.0.1:{ports.backends[0]}"]
"""
    return text + f"""
[pool.{POOL}]
balance = "{'least_conn' if kind == 4 else 'round_robin'}"
connect_timeout = "{1000 + kind}ms"
sticky = {{ cookie = "{COOKIE}", secret = "only-for-load-tests-on-loopback" }}
backends = [
{backends}
]

[pool.{POOL}.ejection]
failures = 3
base = "1s"
max = "3s"
slow = "{GIVE_UP}"

[pool.{POOL}.health]
type = "http"
path = "/healthz"
interval = "500ms"
fast_interval = "100ms"
timeout = "1s"
rise = 2
fall = 2
"""


def app_toml(admin: Path, workers: int, ports: Ports, variant: int = 0) -> str:
    """A shop that lbcore runs itself. There is one variant only."""
    return f"""\
# A shop under load, run by lbcore.
[lbcore]
workers = {workers}
drain_timeout = "2s"

[admin]
listen = "unix:{admin}"

[[listener]]
name = "shop"
bind = "127.0.0.1:{ports.listener}"
protocol = "http"
pool = "{POOL}"
trusted_proxies = ["127.0.0.0/8"]

[pool.{POOL}]
asgi = "{APPLICATION}"
directory = "{TREE}"
instances = {INSTANCES}
options = ["--log-level", "warning"]
stop_timeout = "3s"                     # a chat would go on for ever
balance = "round_robin"
sticky = {{ cookie = "{COOKIE}", secret = "only-for-load-tests-on-loopback" }}

[pool.{POOL}.health]
type = "http"
path = "/healthz"
interval = "500ms"
"""


CAST = Cast(POOL, command, lb_toml)
APP_CAST = Cast(POOL, None, app_toml)
