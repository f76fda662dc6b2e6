from collections.abc import Mapping
from enum import IntFlag
from typing import Any

from lbcore.config.plan import BackendPlan, ListenerPlan, PoolPlan  # what it is given to read

ACCESS_FORMATS: dict[str, int]
ACTIONS: dict[str, int]
ALGORITHMS: dict[str, int]
FIELD_OPS: dict[str, int]
FORWARDED_FLAGS: dict[str, int]
HASH_KEYS: dict[str, int]
MATCH_KINDS: dict[str, int]
PAGE_KINDS: dict[str, tuple[int, str]]
PARTS: dict[str, int]
PATH_KINDS: dict[str, int]
RATE_KEYS: dict[str, int]
MAX_UNIX_PATH: int

class Algorithm(IntFlag):
    ROUND_ROBIN = 0
    LEAST_CONN = 1
    RANDOM = 2
    MAGLEV = 3
    KETAMA = 4

class ListenerFlag(IntFlag):
    LISTENER_PROXY_IN = 1
    LISTENER_HTTP = 2

class PoolPlanFlag(IntFlag):
    POOL_KEEPALIVE = 1
    POOL_SOURCE_BIND = 2
    POOL_TRANSPARENT = 4

class HttpFlag(IntFlag):
    HTTP_X_FORWARDED = 1
    HTTP_FORWARDED = 2
    HTTP_REQUEST_ID = 4
    HTTP_UNDERSCORES = 8
    HTTP_ABORT_ON_CLOSE = 16
    HTTP_ACCESS_LOG = 32

class PageKind(IntFlag):
    PAGE_TEXT = 0
    PAGE_HTML = 1
    PAGE_JSON = 2

class Part(IntFlag):
    PART_TEXT = 0
    PART_CLIENT_IP = 1
    PART_CLIENT_PORT = 2
    PART_HOST = 3
    PART_PORT = 4
    PART_METHOD = 5
    PART_SCHEME = 6
    PART_PATH = 7
    PART_QUERY = 8
    PART_URI = 9
    PART_REQUEST_ID = 10
    PART_LISTENER = 11
    PART_ROUTE = 12
    PART_POOL = 13
    PART_BACKEND = 14
    PART_HEADER = 15
    PART_COOKIE = 16
    PART_CAPTURE = 17
    PART_TAIL = 18

class FieldOp(IntFlag):
    FIELD_SET = 0
    FIELD_ADD = 1
    FIELD_REMOVE = 2

class MatchKind(IntFlag):
    MATCH_PRESENT = 0
    MATCH_EQUAL = 1
    MATCH_PREFIX = 2
    MATCH_REGEX = 3

class PathKind(IntFlag):
    PATH_ANY = 0
    PATH_EXACT = 1
    PATH_PREFIX = 2
    PATH_REGEX = 3

class RouteAction(IntFlag):
    ACTION_POOL = 0
    ACTION_REDIRECT = 1
    ACTION_RESPOND = 2

class RouteFlag(IntFlag):
    ROUTE_BUFFER_REQUEST = 1
    ROUTE_BUFFER_RESPONSE = 2
    ROUTE_RETRY_UNSAFE = 4
    ROUTE_AUTH = 8

class RateKey(IntFlag):
    RATE_SOURCE = 0
    RATE_HEADER = 1
    RATE_COOKIE = 2
    RATE_ROUTE = 3

class StickyMode(IntFlag):
    STICKY_NONE = 0
    STICKY_INSERT = 1
    STICKY_LEARN = 2

class HashOn(IntFlag):
    HASH_SOURCE = 0
    HASH_HEADER = 1
    HASH_COOKIE = 2
    HASH_QUERY = 3
    HASH_PATH = 4
    HASH_URI = 5
class ImageError(Exception): ...

class Image: ...

def sockaddr(host: str = "", port: int = 0, path: str = "") -> bytes: ...
def build_image(
    version: int,
    max_pipes: int,
    listeners: list[tuple[int, ListenerPlan]],
    pools: list[tuple[int, PoolPlan, list[tuple[int, BackendPlan, bytes]], bytes, bytes]],
    routes: Mapping[tuple[str, str], int] | None = None,
    access_format: int = 0,
) -> int: ...
def seal(fd: int) -> None: ...
def contents(fd: int) -> dict[str, Any]: ...
def readable(value: Any, raw: bytes) -> Any: ...
