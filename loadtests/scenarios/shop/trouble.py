"""What happens to the shop while customers are there."""

from __future__ import annotations

import time
from urllib.request import urlopen

from loadtests.compare.procs import HarnessError, wait_until
from loadtests.shop.instance import CONTROL

from ..disturb import Quiet, Reloads
from ..happened import Trouble
from ..scenario import AnyScenario
from ..stage import Backend, Stage
from ..wire import Life
from .catalog import RESTARTS, SLOWNESS
from .config import APPLICATION

DRAINED = 0.5                   # seconds between an instance's last new customers and its end
ENDS_WITHIN = 10.0              # seconds that an application gets to end when it is replaced
SLOW = (0.2, 0.6)
FLAPPING = (0.2, 0.7)
HALF = 1.0                      # seconds of each state while it flaps


def tell(backend: Backend, switches: str) -> None:
    """Tells an instance, at its own port, what to be like."""
    with urlopen(f"http://127.0.0.1:{backend.port}{CONTROL}?{switches}", timeout=10) as answer:
        answer.read()


class Watching(Quiet):
    """Waits for instances that are well again to be given traffic."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage
        self._waiting: dict[int, tuple[float, int]] = {}    # backend: since, requests then

    def step(self, elapsed: float) -> str:
        """See :meth:`Quiet.step`."""
        for number, (since, before) in list(self._waiting.items()):
            if self._requests(number) > before:
                self.happened.returned[number] = time.monotonic() - since
                del self._waiting[number]
        return ""

    def _well(self, backend: Backend) -> None:
        self._waiting[backend.number] = time.monotonic(), self._requests(backend.number)

    def _requests(self, number: int) -> int:
        return int(self._stage.balancer.backend(number)["requests"])


class Restarts(Watching):
    """Each instance is drained, told to end, started again and given traffic again."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        super().__init__(stage)
        self._due = [share * seconds for share in RESTARTS[:len(stage.backends)]]
        self._next = 0
        self._drained: float | None = None
        self._word = "nobody restarted yet"

    def step(self, elapsed: float) -> str:
        """See :meth:`Quiet.step`."""
        super().step(elapsed)
        if self._next < len(self._due):
            backend = self._stage.backends[self._next]
            if self._drained is None and elapsed >= self._due[self._next]:
                self._stage.balancer.drain(backend.number)
                self._drained = elapsed
                self._word = f"instance {backend.number} is drained"
            elif self._drained is not None and elapsed >= self._drained + DRAINED:
                self._restart(backend)
                self._drained = None
                self._next += 1
        return self._word

    def _restart(self, backend: Backend) -> None:
        who, began = backend.now, time.monotonic()
        ended = backend.retire()
        self.happened.troubles.append(Trouble(who, "restarted", began, ended))
        backend.start()
        self._stage.balancer.undrain(backend.number)
        self._well(backend)
        self._word = f"instance {backend.number} is back"

    def finish(self) -> None:
        """See :meth:`Quiet.finish`."""
        if self._next < len(self._due):
            raise HarnessError("the load ended before the last instance was restarted")


class Replacements(Quiet):
    """lbcore is told to restart the application that it runs."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        super().__init__()
        self._balancer = stage.balancer
        self._due = [share * seconds for share in RESTARTS]

    def step(self, elapsed: float) -> str:
        """See :meth:`Quiet.step`."""
        if self._due and elapsed >= self._due[0]:
            self._due.pop(0)
            self._replace()
        return f"{len(RESTARTS) - len(self._due)} restarts"

    def _replace(self) -> None:
        old, began = self._balancer.processes_of(APPLICATION), time.monotonic()
        self._balancer.restart()
        wait_until(lambda: not old & self._balancer.processes_of(APPLICATION), ENDS_WITHIN,
                   "the end of the old application")
        self.happened.troubles += [
            Trouble(Life(1, pid), "replaced", began, time.monotonic()) for pid in sorted(old)]

    def finish(self) -> None:
        """See :meth:`Quiet.finish`."""
        if self._due:
            raise HarnessError("the load ended before the last restart")


class Slowness(Watching):
    """The first instance becomes slow, and well again."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        super().__init__(stage)
        self._begin, self._end = (share * seconds for share in SLOW)
        self._since: float | None = None
        self._over = False

    def step(self, elapsed: float) -> str:
        """See :meth:`Quiet.step`."""
        super().step(elapsed)
        backend = self._stage.backends[0]
        if self._since is None and elapsed >= self._begin:
            self._since = time.monotonic()
            tell(backend, f"delay={SLOWNESS}")
        elif self._since is not None and not self._over and elapsed >= self._end:
            self._over = True
            tell(backend, "")
            self.happened.troubles.append(
                Trouble(backend.now, "slow", self._since, time.monotonic()))
            self._well(backend)
        return "" if self._since is None or self._over else f"instance {backend.number} is slow"

    def finish(self) -> None:
        """See :meth:`Quiet.finish`."""
        if not self._over:
            raise HarnessError("the load ended before the slow instance was well again")


class Flapping(Watching):
    """The first instance answers 503 to everything, and works again, by turns."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        super().__init__(stage)
        self._begin, self._end = (share * seconds for share in FLAPPING)
        self._since: float | None = None
        self._turns = 0
        self._over = False

    def step(self, elapsed: float) -> str:
        """See :meth:`Quiet.step`."""
        super().step(elapsed)
        backend = self._stage.backends[0]
        if self._over or elapsed < self._begin:
            return ""
        if self._since is None:
            self._since = time.monotonic()
        if elapsed >= self._end:
            self._over = True
            tell(backend, "")
            self.happened.troubles.append(
                Trouble(backend.now, "flapping", self._since, time.monotonic()))
            self._well(backend)
        elif elapsed >= self._begin + self._turns * HALF:
            self._turns += 1
            tell(backend, f"failing={self._turns % 2}")
        return f"instance {backend.number} flaps"

    def finish(self) -> None:
        """See :meth:`Quiet.finish`."""
        if not self._over:
            raise HarnessError("the load ended before the instance had stopped flapping")


def disturbance(scenario: AnyScenario, stage: Stage, seconds: float, reload_every: float) -> Quiet:
    """The disturbance that the scenario names."""
    match scenario.disturbance:
        case "restarts":
            return Restarts(stage, seconds)
        case "replacements":
            return Replacements(stage, seconds)
        case "slowness":
            return Slowness(stage, seconds)
        case "flapping":
            return Flapping(stage, seconds)
        case "reloads":
            return Reloads(stage, reload_every)
        case _:
            return Quiet()
