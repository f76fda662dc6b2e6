# The plan image: written once by the supervisor, mapped read-only by every worker. The layout is
# in _plan.pxd.

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, mmap, munmap

import fcntl
import ipaddress
import os
import socket
import struct

cdef uint64_t MAGIC = 0x6E616C706263626C    # "lbcbplan"

ALGORITHMS = {"round_robin": ROUND_ROBIN, "least_conn": LEAST_CONN, "random": RANDOM,
              "maglev": MAGLEV, "ketama": KETAMA}
MAX_UNIX_PATH = 107


class ImageError(Exception):
    """The descriptor holds no plan image that this version of lbcore understands."""


def sockaddr(host: str = "", port: int = 0, path: str = "") -> bytes:
    """A ``struct sockaddr_in``, ``_in6`` or ``_un`` for a numeric host or a unix path.

    Raises ValueError when the host is not numeric or the path is longer than 107 bytes.
    """
    if path:
        raw = os.fsencode(path)
        if raw.startswith(b"@"):
            raw = b"\0" + raw[1:]
        elif len(raw) <= MAX_UNIX_PATH:
            raw += b"\0"
        if len(raw) > MAX_UNIX_PATH + 1:
            raise ValueError(f"unix socket path is longer than {MAX_UNIX_PATH} bytes: {path}")
        return struct.pack("=H", socket.AF_UNIX) + raw
    host, _, zone = host.partition("%")
    address = ipaddress.ip_address(host)
    if address.version == 4:
        return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), address.packed)
    scope = socket.if_nametoindex(zone) if zone else 0
    return struct.pack("=HHI16sI", socket.AF_INET6, socket.htons(port), 0, address.packed, scope)


cdef uint32_t align(size_t size) noexcept:
    return <uint32_t> ((size + 63) & ~<size_t> 63)


def build_image(version: int, max_pipes: int, listeners: list, pools: list) -> int:
    """Writes a plan into a new sealed memfd and returns its descriptor.

    ``listeners``: (row, ListenerPlan) pairs. ``pools``: (row, PoolPlan, members, table,
    backup_table), where members are (row, BackendPlan, sockaddr bytes), primaries first, and the
    tables are what ``_balance`` built for a consistent pool, else ``b""``.
    """
    cdef size_t size = align(sizeof(plan_header_t))
    cdef uint32_t listeners_offset, pools_offset, at, count
    cdef char *base
    cdef plan_header_t *header
    cdef listener_t *listener
    cdef pool_t *pool
    cdef backend_t *backend
    cdef cidr_t *cidr
    listeners_offset = <uint32_t> size
    size += align(len(listeners) * sizeof(listener_t))
    pools_offset = <uint32_t> size
    size += align(len(pools) * sizeof(pool_t))
    variable = <uint32_t> size
    for _, plan in listeners:
        size += align(len(plan.proxy_trusted) * sizeof(cidr_t))
    for _, _, members, table, backup_table in pools:
        size += align(len(members) * sizeof(backend_t))
        size += align(len(table)) + align(len(backup_table))
    if size >= 1 << 32:
        raise ValueError("plan image would exceed 4 GiB: too many backends in consistent pools")

    fd = os.memfd_create("lbcore-plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        image = bytearray(size)
        base = <char *> image
        header = <plan_header_t *> base
        header.magic = MAGIC
        header.layout = PLAN_LAYOUT
        header.version = version
        header.size = size
        header.listener_count = len(listeners)
        header.listeners_offset = listeners_offset
        header.pool_count = len(pools)
        header.pools_offset = pools_offset
        header.max_pipes = max_pipes
        at = variable
        listener = <listener_t *> (base + listeners_offset)
        for row, plan in listeners:
            listener.row = row
            listener.pool = plan.pool
            listener.flags = LISTENER_PROXY_IN if plan.proxy_protocol else 0
            listener.max_connections = plan.max_connections
            listener.max_per_source = plan.max_connections_per_source
            listener.client_idle = plan.client_idle_ms
            listener.half_closed = plan.half_closed_ms
            listener.proxy_timeout = plan.proxy_header_timeout_ms
            listener.trusted_offset = at
            listener.trusted_count = len(plan.proxy_trusted)
            cidr = <cidr_t *> (base + at)
            for text in plan.proxy_trusted:
                network = ipaddress.ip_network(text, strict=False)
                cidr.family = network.version
                cidr.bits = network.prefixlen
                packed = network.network_address.packed
                memcpy(cidr.address, <const char *> packed, len(packed))
                cidr += 1
            at += align(len(plan.proxy_trusted) * sizeof(cidr_t))
            listener += 1
        pool = <pool_t *> (base + pools_offset)
        count = 0
        for row, plan, members, table, backup_table in pools:
            pool.row = row
            name = plan.hash if plan.balance == "consistent" else plan.balance
            pool.algorithm = ALGORITHMS[name]
            pool.flags = POOL_KEEPALIVE if plan.keepalive else 0
            pool.send_proxy = plan.send_proxy
            pool.primary_count = sum(1 for _, b, _ in members if not b.backup)
            pool.backup_count = <uint32_t> len(members) - pool.primary_count
            pool.load_bound = round(plan.load_bound * 1000)
            pool.connect_timeout = plan.connect_timeout_ms
            pool.connect_attempts = plan.connect_attempts
            pool.connect_budget = plan.connect_budget_ms
            pool.queue_timeout = plan.queue_timeout_ms
            pool.max_queue = plan.max_queue
            pool.server_idle = plan.server_idle_ms
            pool.tcp_user_timeout = plan.tcp_user_timeout_ms
            if plan.source_transparent:
                pool.flags |= POOL_TRANSPARENT
            elif plan.source is not None:
                raw = sockaddr(plan.source.host, 0)
                pool.flags |= POOL_SOURCE_BIND
                pool.source_length = len(raw)
                memcpy(pool.source, <const char *> raw, len(raw))
            pool.backends_offset = at
            backend = <backend_t *> (base + at)
            backups = False
            for backend_row, member, raw in members:
                if backups and not member.backup:
                    raise ValueError(f"pool {plan.name}: primaries must come before backups")
                backups = member.backup
                backend.row = backend_row
                backend.weight = member.weight
                backend.max_connections = member.max_connections
                if len(raw) > sizeof(backend.address):
                    raise ValueError(f"address of backend {member.name} is too long")
                backend.address_length = len(raw)
                memcpy(backend.address, <const char *> raw, len(raw))
                backend += 1
            count += <uint32_t> len(members)
            at += align(len(members) * sizeof(backend_t))
            entry = sizeof(uint16_t) if pool.algorithm == MAGLEV else sizeof(ring_point_t)
            pool.table_offset = at
            pool.table_length = <uint32_t> (len(table) // entry)
            memcpy(base + at, <const char *> table, len(table))
            at += align(len(table))
            pool.backup_table_offset = at
            pool.backup_table_length = <uint32_t> (len(backup_table) // entry)
            memcpy(base + at, <const char *> backup_table, len(backup_table))
            at += align(len(backup_table))
            pool += 1
        header.backend_count = count
        view = memoryview(image)
        while view:
            view = view[os.write(fd, view):]
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def seal(fd: int) -> None:
    """Nobody, the supervisor included, can change a plan that workers read."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)


cdef const plan_header_t *map_image(int fd) except NULL:
    """Maps an image read-only and checks that it is one. Raises ImageError or OSError."""
    size = os.fstat(fd).st_size
    if size < sizeof(plan_header_t):
        raise ImageError("plan image is too short")
    cdef size_t length = size
    cdef void *base = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0)
    if base == MAP_FAILED:
        raise OSError("cannot map the plan image")
    cdef const plan_header_t *plan = <const plan_header_t *> base
    if plan.magic != MAGIC or plan.layout != PLAN_LAYOUT or plan.size != length:
        munmap(base, length)
        raise ImageError("plan image was made by another version of lbcore")
    return plan


cdef void unmap_image(const plan_header_t *plan) noexcept nogil:
    munmap(<void *> plan, plan.size)
