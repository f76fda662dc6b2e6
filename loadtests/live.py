"""What live figures cost the supervisor: ``python -m loadtests.live [BACKENDS]``.

Reads the rows of so many backends from a scoreboard with eight workers, and makes rates and
quantiles of two such readings, as the supervisor does while somebody watches. Prints CPU
milliseconds, the median of 50 turns, and the bytes of one reading.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from lbcore._scoreboard import CAPACITY, Scoreboard
from lbcore.supervisor import image
from lbcore.supervisor.live import Sampler, figures_between
from lbcore.supervisor.rollout import Rollout
from lbcore.supervisor.rows import RowTable
from lbcore.supervisor.settings import read_text

WORKERS = 8
TURNS = 50


def rollout(backends: int) -> Rollout:
    """As much of one as a sampler looks at."""
    listed = ", ".join(f'"10.{n // 62500}.{n // 250 % 250}.{n % 250}:80"' for n in range(backends))
    text = ('[[listener]]\nname = "web"\nbind = "127.0.0.1:8080"\nprotocol = "http"\n'
            f'pool = "web"\n[pool.web]\nbackends = [{listed}]\n')
    plan = read_text(text, Path("lb.toml")).plan
    made = SimpleNamespace(board=Scoreboard.create(), plan=plan)
    for kind, keys in (("listeners", image.listener_keys(plan)), ("routes", image.route_keys(plan)),
                       ("pools", image.pool_keys(plan)), ("backends", image.backend_keys(plan))):
        table = RowTable(kind, CAPACITY[kind])
        table.commit(table.assign(keys), 0.0, 0.0)
        setattr(made, kind, table)
    for slot in range(WORKERS):
        made.board.take_seat(slot)
    return cast(Rollout, made)


def cost(work: Callable[[], object]) -> float:
    """CPU milliseconds of one turn."""
    spent = []
    for _ in range(TURNS):
        began = time.process_time()
        work()
        spent.append(1000 * (time.process_time() - began))
    return statistics.median(spent)


def main() -> None:
    """Measures and prints."""
    backends = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    sampler = Sampler(rollout(backends))
    old, new = sampler._read(), sampler._read()
    read, compare = cost(sampler._read), cost(lambda: figures_between(new, old))
    print(f"{backends} backends, {WORKERS} workers: read {read:.1f} ms, compare {compare:.1f} ms, "
          f"{sys.getsizeof(new.backends):,} bytes a reading")


if __name__ == "__main__":
    main()
