"""The supervisor: processes, sockets, signals, reload, upgrade.

``run`` is the door. Behind it, each with one job: supervisor (an instance's life), rollout (a
plan into force), running (the file and what was changed over it: changes, edits, fitting, kept),
control (what can be asked), events, live, discovery, image (a plan as workers map it), rows, groups
and sockets (what listens), reuseport, fleet and worker and process and channel (worker processes),
resize, takeover, upgrade and preflight, demo, status and meter (what people see), instance, limits,
log.
"""

from lbcore.supervisor.main import run

__all__ = ["run"]
