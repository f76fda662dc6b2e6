from enum import IntFlag

from lbcore.config.plan import BackendPlan, ListenerPlan, PoolPlan  # what it is given to read

ALGORITHMS: dict[str, int]
MAX_UNIX_PATH: int

class Algorithm(IntFlag):
    ROUND_ROBIN = 0
    LEAST_CONN = 1
    RANDOM = 2
    MAGLEV = 3
    KETAMA = 4

class ListenerFlag(IntFlag):
    LISTENER_PROXY_IN = 1

class PoolPlanFlag(IntFlag):
    POOL_KEEPALIVE = 1
    POOL_SOURCE_BIND = 2
    POOL_TRANSPARENT = 4

class ImageError(Exception): ...

def sockaddr(host: str = "", port: int = 0, path: str = "") -> bytes: ...
def build_image(
    version: int,
    max_pipes: int,
    listeners: list[tuple[int, ListenerPlan]],
    pools: list[tuple[int, PoolPlan, list[tuple[int, BackendPlan, bytes]], bytes, bytes]],
) -> int: ...
def seal(fd: int) -> None: ...
