"""How long to wait before a process that ended is started again."""

from __future__ import annotations

from collections import deque

DEATHS = 3               # that many lives ...
SHORT_LIVES = 5.0        # ... shorter than this together, in seconds, are a crash loop
FIRST_DELAY = 0.1
MAX_DELAY = 10.0


class Backoff:
    """Restarts at once as long as deaths are rare, ever more slowly when they keep coming."""

    def __init__(self) -> None:
        self._lives: deque[float] = deque(maxlen=DEATHS)
        self.delay = 0.0

    def died(self, lived: float) -> float:
        """Notes a life of so many seconds; returns the seconds to wait before the next one."""
        self._lives.append(lived)
        if len(self._lives) == DEATHS and sum(self._lives) < SHORT_LIVES:
            self.delay = min(MAX_DELAY, self.delay * 2 or FIRST_DELAY)
        else:
            self.delay = 0.0
        return self.delay
