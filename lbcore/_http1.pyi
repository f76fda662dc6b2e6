from enum import IntEnum
from typing import NamedTuple, TypeAlias

FIELDS_MAX: int
CHUNKS_MORE: int
CHUNKS_LAST: int
CHUNKS_BAD: int
HEAD_SIZE: int
CHUNKED_SIZE: int

_Bytes: TypeAlias = bytes | bytearray | memoryview

class Method(IntEnum):
    METHOD_OTHER = 0
    METHOD_GET = 1
    METHOD_HEAD = 2
    METHOD_POST = 3
    METHOD_PUT = 4
    METHOD_DELETE = 5
    METHOD_CONNECT = 6
    METHOD_OPTIONS = 7
    METHOD_TRACE = 8
    METHOD_PATCH = 9

class TargetForm(IntEnum):
    FORM_ORIGIN = 0
    FORM_ABSOLUTE = 1
    FORM_AUTHORITY = 2
    FORM_ASTERISK = 3

class Framing(IntEnum):
    BODY_NONE = 0
    BODY_LENGTH = 1
    BODY_CHUNKED = 2
    BODY_CLOSE = 3

class HeadFlag(IntEnum):
    HEAD_KEEP_ALIVE = 1
    HEAD_UPGRADE = 2
    HEAD_EXPECT = 4
    HEAD_TRAILERS = 8
    HEAD_LENGTH_GIVEN = 16
    HEAD_EXPECT_OTHER = 32

class Rule(IntEnum):
    RULE_NONE = 0
    RULE_REQUEST_LINE = 1
    RULE_TLS = 2
    RULE_METHOD = 3
    RULE_TARGET = 4
    RULE_VERSION = 5
    RULE_LINE_TOO_LONG = 6
    RULE_HEAD_TOO_LONG = 7
    RULE_TOO_MANY_FIELDS = 8
    RULE_BARE_LF = 9
    RULE_BARE_CR = 10
    RULE_CONTROL_BYTE = 11
    RULE_FIELD_NAME = 12
    RULE_FOLDED_LINE = 13
    RULE_NO_HOST = 14
    RULE_TWO_HOSTS = 15
    RULE_HOST = 16
    RULE_HOST_DIFFERS = 17
    RULE_CONNECTION = 18
    RULE_BOTH_LENGTHS = 19
    RULE_TWO_LENGTHS = 20
    RULE_LENGTH = 21
    RULE_CODING = 22
    RULE_CHUNK = 23
    RULE_TRAILERS = 24
    RULE_PATH = 25
    RULE_EXPRESSION = 26
    RULE_EXPECT = 27
    RULES = 28

class FieldId(IntEnum):
    FIELD_OTHER = 0
    FIELD_HOST = 1
    FIELD_CONTENT_LENGTH = 2
    FIELD_TRANSFER_ENCODING = 3
    FIELD_CONNECTION = 4
    FIELD_KEEP_ALIVE = 5
    FIELD_PROXY_CONNECTION = 6
    FIELD_TE = 7
    FIELD_TRAILER = 8
    FIELD_UPGRADE = 9
    FIELD_EXPECT = 10
    FIELD_COOKIE = 11
    FIELD_SET_COOKIE = 12
    FIELD_AUTHORIZATION = 13
    FIELD_FORWARDED = 14
    FIELD_X_FORWARDED_FOR = 15
    FIELD_X_FORWARDED_PROTO = 16
    FIELD_X_FORWARDED_HOST = 17
    FIELD_X_REQUEST_ID = 18
    FIELD_VIA = 19
    FIELD_ACCEPT = 20
    FIELD_USER_AGENT = 21
    FIELD_REFERER = 22
    FIELD_DATE = 23
    FIELD_SERVER = 24
    FIELD_LOCATION = 25
    FIELD_CONTENT_TYPE = 26
    FIELD_X_ACCEL_BUFFERING = 27
    FIELD_ORIGIN = 28
    FIELD_RANGE = 29
    FIELD_IDS = 30

class FieldFlag(IntEnum):
    FIELD_HOP = 1
    FIELD_UNDERSCORE = 2

class Field(NamedTuple):
    name: bytes
    value: bytes
    id: FieldId
    flags: FieldFlag
    at: int

class Head(NamedTuple):
    size: int
    flags: HeadFlag
    status: int
    minor: int
    framing: Framing
    length: int
    method: Method
    form: TargetForm
    method_text: bytes
    target: bytes
    path: bytes
    query: bytes | None
    host: bytes
    reason: bytes
    fields: tuple[Field, ...]
    first: dict[FieldId, int]

def parse_request(
    data: _Bytes, seen: int = 0, max_size: int = 65536, max_fields: int = ...
) -> Head | int: ...
def broken_rule(
    data: _Bytes, seen: int = 0, max_size: int = 65536, max_fields: int = ...
) -> Rule: ...
def parse_response(
    data: _Bytes, method: int = ..., seen: int = 0, max_size: int = 65536, max_fields: int = ...
) -> Head | int: ...
def parse_trailers(data: _Bytes, max_size: int = 65536, max_fields: int = ...) -> Head | int: ...

class Chunked:
    def feed(self, data: _Bytes) -> tuple[int, int, bytes]: ...
    @property
    def left(self) -> int: ...

def find_cookie(data: _Bytes, name: _Bytes) -> bytes | None: ...
def lists(value: _Bytes, token: _Bytes) -> bool: ...
def measure(data: _Bytes, rounds: int, response: bool = False) -> float: ...
