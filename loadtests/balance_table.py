"""Measures the algorithms that pick a backend and writes the tables of docs/balancing.md.

    python -m loadtests.balance_table            print the tables
    python -m loadtests.balance_table --write    put them into docs/balancing.md

Evenness and moved keys depend on nothing but names and hashes: they are the same everywhere, and a
test holds the page to them. Times depend on the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from struct import iter_unpack
from typing import Literal, cast

from lbcore._balance import Selector
from lbcore._plan import build_image, sockaddr
from lbcore._scoreboard import Scoreboard
from lbcore._tables import ketama_ring, maglev_table
from lbcore.config.plan import Address, BackendPlan, PoolPlan
from lbcore.config.plan import Balance as Configured

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "balancing.md"
SIZES = (1, 10, 100, 1000)
KEYS = 100_000
ROUNDS = 5

Hash = Literal["maglev", "ketama"]
Balance = Literal["round_robin", "least_conn", "random", "maglev", "ketama"]
HASHES: tuple[Hash, ...] = ("maglev", "ketama")
EVERY: tuple[Balance, ...] = ("round_robin", "least_conn", "random", "maglev", "ketama")


def servers(count: int) -> list[str]:
    return [f"10.0.{i >> 8}.{i & 255}:8000" for i in range(count)]


def client_addresses() -> list[bytes]:
    draw = random.Random(2018)
    return [".".join(str(draw.randrange(256)) for _ in range(4)).encode() for _ in range(KEYS)]


def table(kind: str, names: Sequence[str]) -> bytes:
    weights = [1] * len(names)
    if kind == "maglev":
        return maglev_table([name.encode() for name in names], weights)
    return ketama_ring(names, weights) if kind == "ketama" else b""


def selector(kind: Balance, names: Sequence[str]) -> Selector:
    """A worker's selection over a pool of these servers, all of them up."""
    backends = tuple(BackendPlan(name, Address(name, 8000), label=name) for name in names)
    pool = PoolPlan("measured", backends,
                    balance=cast(Configured, "consistent" if kind in HASHES else kind),
                    hash="ketama" if kind == "ketama" else "maglev")
    members = [(i, b, sockaddr(b.name.rpartition(":")[0], 8000)) for i, b in enumerate(backends)]
    image = build_image(1, 0, [], [(0, pool, members, table(kind, names), b"")])
    board = Scoreboard.create()
    for i in range(len(names)):
        board.set_backend(i, 0, 1)
    board.set_pool(0, 0, len(names))
    made = Selector(board, image, board.take_seat(0))
    os.close(image)
    return made


def placed(kind: Balance, names: Sequence[str], keys: Sequence[bytes]) -> list[str]:
    return [names[i] for i in selector(kind, names).route(0, keys)]


# -- what is measured


def parts(kind: Hash, count: int) -> list[float]:
    """Each backend's part of all possible keys, 1.0 being its fair one."""
    made = table(kind, servers(count))
    owned = [0] * count
    if kind == "maglev":
        entries = memoryview(made).cast("H")
        for i in entries:
            owned[i] += 1
        return [n * count / len(entries) for n in owned]
    points = list(iter_unpack("=II", made))
    before = points[-1][0] - (1 << 32)
    for point, i in points:
        owned[i] += point - before
        before = point
    return [n * count / (1 << 32) for n in owned]


def evenness() -> list[str]:
    rows = ["| backends | maglev: least | most | ketama: least | most | ideal |",
            "|---:|---:|---:|---:|---:|---:|"]
    for count in SIZES:
        cells = []
        for kind in HASHES:
            part = parts(kind, count)
            cells += [f"{min(part):.3f}", f"{max(part):.3f}"]
        rows.append(f"| {count:,} | " + " | ".join(cells) + " | 1.000 |")
    return rows


def changed(kind: Hash, before: Sequence[str], after: Sequence[str],
            keys: Sequence[bytes]) -> tuple[float, float]:
    """Shares of the keys that moved, and that moved between backends that are in both."""
    a, b = placed(kind, before, keys), placed(kind, after, keys)
    both = set(before) & set(after)
    moved = [(x, y) for x, y in zip(a, b, strict=True) if x != y]
    return (len(moved) / len(keys),
            sum(x in both and y in both for x, y in moved) / len(keys))


def disruption() -> list[str]:
    keys = client_addresses()
    rows = ["| change | ideal | maglev | of which needless | ketama | of which needless |",
            "|---|---:|---:|---:|---:|---:|"]
    for count in SIZES:
        names = servers(count + 1)
        changes = [(f"{count:,} → {count + 1:,}", names[:count], names)]
        if count > 1:
            gone = count // 3
            fewer = names[:gone] + names[gone + 1 : count]
            changes.insert(0, (f"{count:,} → {count - 1:,}", names[:count], fewer))
        for title, before, after in changes:
            cells = [f"{1 / max(len(before), len(after)):.2%}"]
            for kind in HASHES:
                cells += [f"{share:.2%}" for share in changed(kind, before, after, keys)]
            rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return rows


def pick_times() -> list[str]:
    """Nanoseconds from a key to a backend whose place is taken and given back."""
    keys = client_addresses()[:20_000]
    rows = ["| backends | " + " | ".join(EVERY) + " |", "|---:" * (len(EVERY) + 1) + "|"]
    for count in SIZES:
        cells = []
        for kind in EVERY:
            made = selector(kind, servers(count))
            asked = keys if count < 1000 else keys[:5000]
            made.route(0, asked)
            cells.append(f"{cpu_seconds(partial(made.route, 0, asked)) / len(asked) * 1e9:,.0f}")
        rows.append(f"| {count:,} | " + " | ".join(cells) + " |")
    return rows


def build_times() -> list[str]:
    rows = ["| backends | maglev: entries | KiB | ms | ketama: points | KiB | ms |",
            "|---:|---:|---:|---:|---:|---:|---:|"]
    for count in SIZES:
        cells = []
        for kind, entry in (("maglev", 2), ("ketama", 8)):
            names = servers(count)
            made = table(kind, names)
            took = cpu_seconds(partial(table, kind, names))
            cells += [f"{len(made) // entry:,}", f"{len(made) / 1024:,.0f}", f"{took * 1e3:.1f}"]
        rows.append(f"| {count:,} | " + " | ".join(cells) + " |")
    return rows


def cpu_seconds(work: Callable[[], object]) -> float:
    """Median CPU seconds of several rounds."""
    took = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return statistics.median(took)


# -- where it goes


def processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.machine()}, Python {platform.python_version()}"


TABLES: dict[str, Callable[[], list[str]]] = {
    "evenness": evenness,
    "disruption": disruption,
    "pick-times": pick_times,
    "build-times": build_times,
    "machine": lambda: [f"Measured on: {processor()}."],
}


def section(page: str, name: str) -> str:
    """The text of a measured section of the page."""
    found = re.search(rf"<!-- measured: {name} -->\n(.*?)\n<!-- end -->", page, re.DOTALL)
    if found is None:
        raise ValueError(f"{PAGE.name} has no section <!-- measured: {name} -->")
    return found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    write = parser.parse_args().write
    page = PAGE.read_text()
    for name, measure in TABLES.items():
        old, text = section(page, name), "\n".join(measure())
        page = page.replace(f"<!-- measured: {name} -->\n{old}\n<!-- end -->",
                            f"<!-- measured: {name} -->\n{text}\n<!-- end -->")
        print(f"{text}\n", flush=True)
    if write:
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
