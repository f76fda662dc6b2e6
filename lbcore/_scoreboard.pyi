from enum import IntEnum, IntFlag
from typing import Any

END_REASON_NAMES: tuple[str, ...]
HTTP_END_NAMES: tuple[str, ...]
STATUS_NAMES: tuple[str, ...]
STATE_NAMES: tuple[str, ...]
CAPACITY: dict[str, int]
SIZES: dict[str, int]

class BackendState(IntEnum):
    STATE_UP = 0
    STATE_DOWN = 1
    STATE_EJECTED = 2
    STATE_DRAIN = 3
    STATE_GONE = 4

class EndReason(IntEnum):
    END_NORMAL = 0
    END_CLIENT_RESET = 1
    END_SERVER_RESET = 2
    END_CLIENT_IDLE = 3
    END_SERVER_IDLE = 4
    END_HALF_CLOSED = 5
    END_CONNECT_FAILED = 6
    END_NO_BACKEND = 7
    END_QUEUE_TIMEOUT = 8
    END_QUEUE_FULL = 9
    END_SOURCE_LIMIT = 10
    END_PROXY_MALFORMED = 11
    END_PROXY_TIMEOUT = 12
    END_CLIENT_GONE = 13
    END_SHUTDOWN = 14
    END_INTERNAL = 15
    END_REASONS = 16

class HttpEnd(IntEnum):
    HTTP_OK = 0
    HTTP_BAD_REQUEST = 1
    HTTP_HEAD_TIMEOUT = 2
    HTTP_TOO_LARGE = 3
    HTTP_DENIED = 4
    HTTP_UNAUTHORIZED = 5
    HTTP_LIMITED = 6
    HTTP_NO_BACKEND = 7
    HTTP_QUEUE_TIMEOUT = 8
    HTTP_QUEUE_FULL = 9
    HTTP_CONNECT_FAILED = 10
    HTTP_CONNECT_TIMEOUT = 11
    HTTP_EMPTY_ANSWER = 12
    HTTP_BAD_ANSWER = 13
    HTTP_FIRST_BYTE = 14
    HTTP_TOTAL = 15
    HTTP_ANSWER_CUT = 16
    HTTP_CLIENT_GONE = 17
    HTTP_CLIENT_SLOW = 18
    HTTP_SHUTDOWN = 19
    HTTP_INTERNAL = 20
    HTTP_SOURCE_LIMIT = 21
    HTTP_TUNNEL_IDLE = 22
    HTTP_ENDS = 24

class PoolFlag(IntFlag):
    POOL_PANIC = 1
    POOL_BACKUP = 2

class SeatState(IntEnum):
    SEAT_FREE = 0
    SEAT_STARTING = 1
    SEAT_SERVING = 2
    SEAT_DRAINING = 3

class LayoutError(Exception): ...

def histogram_bound(bucket: int) -> int: ...

class Scoreboard:
    fd: int
    @staticmethod
    def create() -> Scoreboard: ...
    @staticmethod
    def attach(fd: int) -> Scoreboard: ...
    def set_backend(
        self, row: int, state: int, weight: int, ramp: int = 256, eject_after: int = 0
    ) -> None: ...
    def reset_backend(self, row: int) -> None: ...
    def backend(self, row: int) -> dict[str, Any]: ...
    def failures(self, row: int) -> int: ...
    def clear_failures(self, row: int) -> None: ...
    def set_failures(self, row: int, count: int) -> None: ...
    def inflight(self, row: int) -> int: ...
    def set_pool(self, row: int, flags: int, total_weight: int) -> None: ...
    def pool(self, row: int) -> dict[str, int]: ...
    def reset_pool(self, row: int) -> None: ...
    def reset_listener(self, row: int) -> None: ...
    def reset_route(self, row: int) -> None: ...
    def backend_totals(self, row: int) -> dict[str, Any]: ...
    def listener_totals(self, row: int) -> dict[str, Any]: ...
    def route_totals(self, row: int) -> dict[str, Any]: ...
    def pool_totals(self, row: int) -> dict[str, int]: ...
    def seat(self, seat: int) -> dict[str, int]: ...
    def heartbeat_ms(self, seat: int) -> int: ...
    def take_seat(self, slot: int) -> int: ...
    def leave_seat(
        self, seat: int, backend_rows: int, pool_rows: int, listener_rows: int,
        route_rows: int = 8192,
    ) -> None: ...
    def reconcile(
        self, backend_rows: int, pool_rows: int, listener_rows: int
    ) -> list[tuple[str, int, int]]: ...
    def adjust(self, kind: str, row: int, excess: int) -> None: ...
