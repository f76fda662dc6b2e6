"""``lbcore.Client`` and ``lbcore.AsyncClient``: the whole admin API from Python, with types.

``sync`` and ``aio`` have the same methods; they share what is asked (``lbcore.admin.calls``), the
models of the answers (``models``), how pools are handled (``pools``) and what errors mean.
"""

from lbcore.admin.calls import (
    AdminError,
    ClientError,
    Conflict,
    Denied,
    NotFound,
    NotRunning,
    Refused,
    Stale,
)
from lbcore.client.aio import AsyncClient, AsyncPool
from lbcore.client.common import Readiness
from lbcore.client.sync import Client, Pool

__all__ = [
    "AdminError",
    "AsyncClient",
    "AsyncPool",
    "Client",
    "ClientError",
    "Conflict",
    "Denied",
    "NotFound",
    "NotRunning",
    "Pool",
    "Readiness",
    "Refused",
    "Stale",
]
