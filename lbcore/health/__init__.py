"""Health: active checks, passive ejection, and the up/down state machine.

The supervisor's door is :class:`HealthMonitor`; ``docs/health.md`` is the user's view. The rooms
behind it: states (what a backend's state is), ledger (what that means for its pool), ejection and
slow_start (arithmetic), target, probe and reply (making a check and judging the answer), timers,
watch (what is remembered), handover (between supervisors), telling (workers by the scoreboard,
people by events), monitor (who tells whom).
"""

from lbcore.health.model import BackendHealth, HealthEvent, Member, Orders, PoolRows
from lbcore.health.monitor import HealthMonitor

__all__ = ["BackendHealth", "HealthEvent", "HealthMonitor", "Member", "Orders", "PoolRows"]
