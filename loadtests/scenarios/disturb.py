"""What happens to the stage while the load is on."""

from __future__ import annotations

import time

from loadtests.compare.procs import HarnessError

from .happened import Death, Happened
from .scenario import AnyScenario
from .stage import Stage

# Which backend is away, from when to when, as shares of the run.
ABSENCES = ((0, 0.15, 0.35), (1, 0.55, 0.75))


class Quiet:
    """No disturbance."""

    def __init__(self) -> None:
        self.happened = Happened()

    def step(self, elapsed: float) -> str:
        """Does what is due after ``elapsed`` seconds of load; a word about how things are."""
        return ""

    def finish(self) -> None:
        """Does what is left when the load is over, while lbcore still runs."""


class Deaths(Quiet):
    """Backends are killed with SIGKILL and started again at the same port."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        super().__init__()
        self._stage = stage
        self._due = sorted(
            [(begin * seconds, "kill", which) for which, begin, _ in ABSENCES]
            + [(end * seconds, "start", which) for which, _, end in ABSENCES])
        self._word = "all backends there"
        self._waiting: dict[int, tuple[float, int]] = {}    # backend: since, connections then

    def step(self, elapsed: float) -> str:
        """See :meth:`Quiet.step`."""
        if self._due and elapsed >= self._due[0][0]:
            _, what, which = self._due.pop(0)
            (self._kill if what == "kill" else self._start)(which)
        for number, (since, before) in list(self._waiting.items()):
            if int(self._stage.balancer.backend(number)["connections"]) > before:
                self.happened.returned[number] = time.monotonic() - since
                del self._waiting[number]
        return self._word

    def _kill(self, which: int) -> None:
        backend = self._stage.backends[which]
        began = time.monotonic()
        self.happened.deaths.append(Death(backend.now, began, backend.kill()))
        self._word = f"backend {backend.number} is dead"

    def _start(self, which: int) -> None:
        backend = self._stage.backends[which]
        backend.start()
        before = int(self._stage.balancer.backend(backend.number)["connections"])
        self._waiting[backend.number] = time.monotonic(), before
        self._word = f"backend {backend.number} is back"

    def finish(self) -> None:
        """See :meth:`Quiet.finish`."""
        if self._due:
            raise HarnessError("the load ended before the last backend was back")


class Reloads(Quiet):
    """A changed configuration and a SIGHUP, every so often."""

    def __init__(self, stage: Stage, every: float) -> None:
        super().__init__()
        self._balancer = stage.balancer
        self._every = every
        self._first_plan = self._plan()

    def step(self, elapsed: float) -> str:
        """See :meth:`Quiet.step`."""
        if elapsed >= self.happened.reloads_asked * self._every:
            self.happened.reloads_asked += 1
            self._balancer.configure(self.happened.reloads_asked)
            self._balancer.hang_up()
        return f"{self.happened.reloads_asked} reloads"

    def finish(self) -> None:
        """Goes back to the first configuration and counts the plans that came into force."""
        self._balancer.configure(0)
        self._balancer.reload()     # takes its turn after those that are still under way
        status = self._balancer.status()
        last = int(status["plan"]["version"])
        self.happened.reloads_done = last - self._first_plan - 1
        self.happened.plans_behind = sum(
            worker.get("plan_version") != last for worker in status["workers"])

    def _plan(self) -> int:
        return int(self._balancer.status()["plan"]["version"])


def disturbance(scenario: AnyScenario, stage: Stage, seconds: float, reload_every: float) -> Quiet:
    """The disturbance that the scenario names."""
    if scenario.disturbance == "deaths":
        return Deaths(stage, seconds)
    if scenario.disturbance == "reloads":
        return Reloads(stage, reload_every)
    return Quiet()
