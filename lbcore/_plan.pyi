from collections.abc import Sequence

from lbcore.config.plan import BackendPlan, ListenerPlan, PoolPlan

ALGORITHMS: dict[str, int]
MAX_UNIX_PATH: int

class ImageError(Exception): ...

def sockaddr(host: str = "", port: int = 0, path: str = "") -> bytes: ...
def build_image(
    version: int,
    max_pipes: int,
    listeners: Sequence[tuple[int, ListenerPlan]],
    pools: Sequence[tuple[int, PoolPlan, Sequence[tuple[int, BackendPlan, bytes]], bytes, bytes]],
) -> int: ...
