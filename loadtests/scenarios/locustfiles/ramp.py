"""Users and load shape of the scenario ``ramp``.

``--users`` and ``--run-time`` keep their meaning: the most users at once, and the whole length.
"""

from locust import LoadTestShape

from loadtests.scenarios.catalog import RAMP_UP
from loadtests.scenarios.shape import users_at
from loadtests.scenarios.users import Staying, Visiting


class Resident(Staying):
    """Exchanges messages on one connection."""

    behaviour = RAMP_UP.behaviours[0]


class Visitor(Visiting):
    """Comes, asks and goes."""

    behaviour = RAMP_UP.behaviours[1]


class Steps(LoadTestShape):
    """The number of users over time."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Users wanted now, and how many of them may start in a second; None at the end."""
        runner = self.runner
        if runner is None or runner.environment.parsed_options is None:
            return None
        options = runner.environment.parsed_options
        most = options.num_users or RAMP_UP.users
        elapsed: float = self.get_run_time()  # type: ignore[no-untyped-call]
        users = users_at(RAMP_UP.steps, elapsed, options.run_time or 30, most)
        return None if users is None else (users, float(most))
