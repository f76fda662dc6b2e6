from typing import TypeAlias

MORE: int
MALFORMED: int
MAX: int
OUT_MAX: int
ENDPOINT_SIZE: int

Endpoint: TypeAlias = tuple[bytes, int] | None

def parse(
    data: bytes | bytearray | memoryview,
    source: Endpoint = None,
    destination: Endpoint = None,
) -> tuple[int, Endpoint, Endpoint]: ...
def build(version: int, source: Endpoint, destination: Endpoint) -> bytes: ...
def text(endpoint: Endpoint) -> str: ...
def from_sockaddr(raw: bytes) -> Endpoint: ...
def to_sockaddr(endpoint: Endpoint, keep_port: bool) -> bytes: ...
def contains(network: bytes, bits: int, endpoint: Endpoint) -> bool: ...
