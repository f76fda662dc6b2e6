"""lbcore: a load balancer and reverse proxy for people who run Python services.

``Client`` and ``AsyncClient`` talk to a running instance, ``Balancer`` runs one for a program. They
are imported when they are asked for: whoever needs a compiled module alone, as workers do, gets
nothing else.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False        # typing's own would be imported for it, by every worker

if TYPE_CHECKING:
    from lbcore.balancer import AsyncBalancer, Balancer, BalancerError
    from lbcore.client import (
        AdminError,
        AsyncClient,
        AsyncPool,
        Client,
        ClientError,
        Conflict,
        Denied,
        NotFound,
        NotRunning,
        Pool,
        Refused,
        Stale,
    )
    from lbcore.config import ConfigError

_HOMES = {
    "lbcore.balancer": ("AsyncBalancer", "Balancer", "BalancerError"),
    "lbcore.client": ("AdminError", "AsyncClient", "AsyncPool", "Client", "ClientError", "Conflict",
                      "Denied", "NotFound", "NotRunning", "Pool", "Refused", "Stale"),
    "lbcore.config": ("ConfigError",),
}

__all__ = [
    "AdminError",
    "AsyncBalancer",
    "AsyncClient",
    "AsyncPool",
    "Balancer",
    "BalancerError",
    "Client",
    "ClientError",
    "ConfigError",
    "Conflict",
    "Denied",
    "NotFound",
    "NotRunning",
    "Pool",
    "Refused",
    "Stale",
    "__version__",
]


if not TYPE_CHECKING:        # or every misspelt name would be one

    def __getattr__(name):
        """A public name that is used for the first time."""
        for home, names in _HOMES.items():
            if name in names:
                from importlib import import_module  # noqa: PLC0415  (workers do without)

                found = globals()[name] = getattr(import_module(home), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
