# The scoreboard: live state shared by the supervisor and every worker process. Its layout, who
# writes what, and why nothing is locked are in _scoreboard.pxd.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close

from lbcore.includes.linux cimport FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate
from lbcore.includes.atomics cimport load32, load64, store32, store64, sub32

import fcntl
import os

cdef uint64_t MAGIC = 0x6472616F6263626C    # "lbcboard"

cdef size_t lay_out(board_t *board, char *base) noexcept nogil:
    """Points ``board`` into a mapping at ``base``; returns the size the mapping must have."""
    cdef size_t at = sizeof(board_header_t)
    board.header = <board_header_t *> base
    board.seats = <seat_t *> (base + at)
    at += MAX_SEATS * sizeof(seat_t)
    board.backends = <backend_live_t *> (base + at)
    at += MAX_BACKENDS * sizeof(backend_live_t)
    board.pools = <pool_live_t *> (base + at)
    at += MAX_POOLS * sizeof(pool_live_t)
    board.listeners = <listener_live_t *> (base + at)
    at += MAX_LISTENERS * sizeof(listener_live_t)
    # From here on everything is per seat. Each seat's rows start on a page of their own, so that
    # an unused seat costs nothing and an ended worker's pages can be given back.
    board.backend_counters = <backend_counters_t *> (base + at)
    at += <size_t> MAX_SEATS * MAX_BACKENDS * sizeof(backend_counters_t)
    board.listener_counters = <listener_counters_t *> (base + at)
    at += <size_t> MAX_SEATS * MAX_LISTENERS * sizeof(listener_counters_t)
    board.pool_counters = <pool_counters_t *> (base + at)
    at += <size_t> MAX_SEATS * MAX_POOLS * sizeof(pool_counters_t)
    board.sources = <source_entry_t *> (base + at)
    at += <size_t> MAX_SEATS * SOURCE_SLOTS * sizeof(source_entry_t)
    board.route_counters = <route_counters_t *> (base + at)
    at += <size_t> MAX_SEATS * MAX_ROUTES * sizeof(route_counters_t)
    # Of all seats together again.
    board.learnt = <learnt_t *> (base + at)
    at += <size_t> LEARN_SLOTS * sizeof(learnt_t)
    board.rates = <rate_bucket_t *> (base + at)
    at += <size_t> RATE_SLOTS * sizeof(rate_bucket_t)
    return at


# ---- latency histogram -----------------------------------------------------------------------

cdef uint32_t histogram_bucket(uint32_t value) noexcept nogil:
    """Log-linear bucket of a duration in microseconds: exact up to 3, then 4 per power of two."""
    cdef uint32_t shift = 0, bucket
    if value < 4:
        return value
    while (value >> shift) >= 8:
        shift += 1
    bucket = 4 + shift * 4 + ((value >> shift) - 4)
    return bucket if bucket < HISTOGRAM_BUCKETS else HISTOGRAM_BUCKETS - 1


def histogram_bound(bucket: int) -> int:
    """The smallest duration in microseconds that falls into the bucket above ``bucket``."""
    if bucket < 3:
        return bucket + 1
    shift, step = divmod(bucket + 1 - 4, 4)
    return (4 + step) << shift


# ---- connections per source address ----------------------------------------------------------
#
# Every worker counts in a table of its own (open addressing, linear probing) and reads those of
# all others, so a limit holds over all workers without a lock, and what a crashed worker had
# counted disappears with its table.

cdef uint64_t mix(uint64_t x) noexcept nogil:
    x ^= x >> 32
    x *= 0xD6E8FEB86659FD93ULL
    x ^= x >> 32
    x *= 0xD6E8FEB86659FD93ULL
    x ^= x >> 32
    return x


cdef uint64_t source_key(const board_t *board, uint32_t listener_row, const void *address,
                         uint32_t length) noexcept nogil:
    """A keyed hash of an address of at most 16 bytes, for one listener; never 0."""
    cdef uint64_t part[2]
    cdef uint64_t key
    part[0] = 0
    part[1] = 0
    memcpy(part, address, length if length <= 16 else 16)
    key = mix(part[0] ^ board.header.secret[0])
    key = mix(key ^ part[1] ^ board.header.secret[1] ^ (<uint64_t> listener_row << 32 | length))
    return key if key != 0 else 1


cdef source_entry_t *source_find(source_entry_t *table, uint64_t key) noexcept nogil:
    """The entry of ``key`` or the free one where it would go; NULL when the table is full."""
    cdef uint32_t at = <uint32_t> key & (SOURCE_SLOTS - 1)
    cdef uint32_t _step
    cdef source_entry_t *reusable = NULL
    cdef uint64_t found
    for _step in range(64):
        found = load64(&table[at].key)
        if found == key:
            return &table[at]
        if found == 0:
            return reusable if reusable != NULL else &table[at]
        if reusable == NULL and load32(&table[at].count) == 0:
            reusable = &table[at]
        at = (at + 1) & (SOURCE_SLOTS - 1)
    return reusable


cdef uint32_t source_count(const board_t *board, uint64_t key) noexcept nogil:
    """Connections of one source over all workers."""
    cdef uint32_t seat, total = 0
    cdef source_entry_t *entry
    for seat in range(1, MAX_SEATS):
        if load32(&board.seats[seat].state) == SEAT_FREE:
            continue
        entry = source_find(board.sources + <size_t> seat * SOURCE_SLOTS, key)
        if entry != NULL and load64(&entry.key) == key:
            total += load32(&entry.count)
    return total


cdef bint source_add(const board_t *board, uint32_t seat, uint64_t key) noexcept nogil:
    """Counts one more connection of a source; False if the table is too full to count it."""
    cdef source_entry_t *entry = source_find(board.sources + <size_t> seat * SOURCE_SLOTS, key)
    if entry == NULL:
        return False
    if entry.key != key:
        store32(&entry.count, 0)
        store64(&entry.key, key)
    store32(&entry.count, entry.count + 1)
    return True


cdef void source_remove(const board_t *board, uint32_t seat, uint64_t key) noexcept nogil:
    """Takes back one ``source_add`` that returned True."""
    cdef source_entry_t *entry = source_find(board.sources + <size_t> seat * SOURCE_SLOTS, key)
    if entry != NULL and entry.key == key and entry.count > 0:
        # The key stays as a marker that probing goes on here; an entry with count 0 is reused.
        store32(&entry.count, entry.count - 1)


# ---- the supervisor's door ---------------------------------------------------------------------

END_REASON_NAMES = (
    "normal", "client_reset", "server_reset", "client_idle", "server_idle", "half_closed",
    "connect_failed", "no_backend", "queue_timeout", "queue_full",
    "source_limit", "proxy_malformed", "proxy_timeout", "client_gone", "shutdown", "internal",
)
HTTP_END_NAMES = (
    "ok", "bad_request", "head_timeout", "too_large", "denied", "unauthorized", "limited",
    "no_backend", "queue_timeout", "queue_full", "connect_failed", "connect_timeout",
    "empty_answer", "bad_answer", "first_byte", "total", "answer_cut", "client_gone",
    "client_slow", "shutdown", "internal", "source_limit", "tunnel_idle",
)
STATUS_NAMES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
STATE_NAMES = ("up", "down", "ejected", "drain", "gone")
CAPACITY = {"seats": MAX_SEATS - 1, "backends": MAX_BACKENDS, "pools": MAX_POOLS,
            "listeners": MAX_LISTENERS, "routes": MAX_ROUTES, "rates": RATE_SLOTS,
            "learnt": LEARN_SLOTS}
SIZES = {"backend_live": sizeof(backend_live_t), "pool_live": sizeof(pool_live_t),
         "listener_live": sizeof(listener_live_t), "backend_counters": sizeof(backend_counters_t),
         "listener_counters": sizeof(listener_counters_t),
         "pool_counters": sizeof(pool_counters_t), "route_counters": sizeof(route_counters_t),
         "source_entry": sizeof(source_entry_t), "rate_bucket": sizeof(rate_bucket_t),
         "learnt": sizeof(learnt_t), "seat": sizeof(seat_t), "header": sizeof(board_header_t)}


class LayoutError(Exception):
    """The descriptor is no scoreboard of this version of lbcore."""


cdef class Scoreboard:
    """The shared segment, made with :meth:`create` or mapped with :meth:`attach`.

    Rows and seats are plain indexes that the supervisor hands out. Methods that take a seat work
    on what that worker process counted; ``*_totals`` sum over all seats, ended workers included.
    """

    def __cinit__(self):
        self.fd = -1
        self.base = NULL

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size)
        if self.fd >= 0:
            close(self.fd)

    @staticmethod
    def create() -> Scoreboard:
        """A new, empty segment. Raises OSError when the system gives no memory file."""
        cdef board_t board
        fd = os.memfd_create("lbcore-scoreboard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, lay_out(&board, NULL))
        # Nobody can cut it short: to read behind its end would end every process that maps it.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS,
                    fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        cdef Scoreboard self = Scoreboard()
        self.map(fd)
        secret = os.urandom(16)
        memcpy(self.board.header.secret, <const char *> secret, 16)
        self.board.header.layout = LAYOUT_VERSION
        self.board.header.size_kib = <uint32_t> (self.size // 1024)
        self.board.header.magic = MAGIC
        self.board.seats[0].state = SEAT_SERVING
        return self

    @staticmethod
    def attach(fd: int) -> Scoreboard:
        """Maps an existing segment and owns ``fd`` from then on, also when it cannot be used.

        Raises LayoutError when it was made by a version with another layout.
        """
        cdef board_t board
        cdef Scoreboard self = Scoreboard()
        self.fd = fd
        wanted = lay_out(&board, NULL)
        if os.fstat(fd).st_size != wanted:
            raise LayoutError("scoreboard has another size: made by another version of lbcore")
        self.map(fd)
        if self.board.header.magic != MAGIC or self.board.header.layout != LAYOUT_VERSION:
            raise LayoutError("scoreboard has another layout: made by another version of lbcore")
        return self

    cdef map(self, int fd):
        cdef size_t size = lay_out(&self.board, NULL)
        cdef void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        self.fd = fd
        if base == MAP_FAILED:
            raise OSError("cannot map the scoreboard")
        self.base = base
        self.size = size
        lay_out(&self.board, <char *> base)

    # -- backends and pools: the supervisor's verdicts

    def set_backend(self, row: int, state: int, weight: int, ramp: int = 256,
                    eject_after: int = 0) -> None:
        """State (BackendState), weight 0..1000, slow-start share 0..256, passive threshold."""
        cdef backend_live_t *live = &self.board.backends[check(row, MAX_BACKENDS)]
        live.weight = weight
        live.ramp = ramp
        live.eject_after = eject_after
        live.state = state

    def reset_backend(self, row: int) -> None:
        """Clears a row, all counters included, before it is given to another backend."""
        cdef uint32_t seat, index = check(row, MAX_BACKENDS)
        memset(&self.board.backends[index], 0, sizeof(backend_live_t))
        for seat in range(MAX_SEATS):
            if seat == 0 or load32(&self.board.seats[seat].state) != SEAT_FREE:
                memset(self.board.backend_counters + <size_t> seat * MAX_BACKENDS + index, 0,
                       sizeof(backend_counters_t))

    def backend(self, row: int) -> dict:
        """``state``, ``weight``, ``ramp``, ``inflight`` and consecutive ``failures`` of a row."""
        cdef backend_live_t *live = &self.board.backends[check(row, MAX_BACKENDS)]
        return {"state": STATE_NAMES[live.state], "weight": live.weight, "ramp": live.ramp,
                "inflight": load32(&live.inflight), "failures": load32(&live.failures)}

    def failures(self, row: int) -> int:
        """Consecutive failed connects or resets before any byte, over all workers."""
        return load32(&self.board.backends[check(row, MAX_BACKENDS)].failures)

    def clear_failures(self, row: int) -> None:
        """Forgets the consecutive failures of a row."""
        store32(&self.board.backends[check(row, MAX_BACKENDS)].failures, 0)

    def set_failures(self, row: int, count: int) -> None:
        """Sets the consecutive failures of a row; workers set them to 0 at the first success.

        One below ``eject_after``, the next failure rings.
        """
        store32(&self.board.backends[check(row, MAX_BACKENDS)].failures, <uint32_t> count)

    def inflight(self, row: int) -> int:
        """Connections of a backend over all workers, connecting and connected."""
        return load32(&self.board.backends[check(row, MAX_BACKENDS)].inflight)

    def set_pool(self, row: int, flags: int, total_weight: int) -> None:
        """PoolFlag bits and the sum of the weights of the eligible backends."""
        cdef pool_live_t *live = &self.board.pools[check(row, MAX_POOLS)]
        live.total_weight = total_weight
        live.flags = flags

    def pool(self, row: int) -> dict:
        """``inflight``, ``waiting`` and ``flags`` of a pool's row."""
        cdef pool_live_t *live = &self.board.pools[check(row, MAX_POOLS)]
        return {"inflight": load32(&live.inflight), "waiting": load32(&live.waiting),
                "flags": live.flags}

    def reset_pool(self, row: int) -> None:
        """Clears a pool's row, all counters included."""
        cdef uint32_t seat, index = check(row, MAX_POOLS)
        memset(&self.board.pools[index], 0, sizeof(pool_live_t))
        for seat in range(MAX_SEATS):
            if seat == 0 or load32(&self.board.seats[seat].state) != SEAT_FREE:
                memset(self.board.pool_counters + <size_t> seat * MAX_POOLS + index, 0,
                       sizeof(pool_counters_t))

    def reset_listener(self, row: int) -> None:
        """Clears a listener's row, all counters included."""
        cdef uint32_t seat, index = check(row, MAX_LISTENERS)
        memset(&self.board.listeners[index], 0, sizeof(listener_live_t))
        for seat in range(MAX_SEATS):
            if seat == 0 or load32(&self.board.seats[seat].state) != SEAT_FREE:
                memset(self.board.listener_counters + <size_t> seat * MAX_LISTENERS + index, 0,
                       sizeof(listener_counters_t))

    def reset_route(self, row: int) -> None:
        """Clears a route's row before it is given to another route."""
        cdef uint32_t seat, index = check(row, MAX_ROUTES)
        for seat in range(MAX_SEATS):
            if seat == 0 or load32(&self.board.seats[seat].state) != SEAT_FREE:
                memset(self.board.route_counters + <size_t> seat * MAX_ROUTES + index, 0,
                       sizeof(route_counters_t))

    # -- totals over all seats

    def backend_totals(self, row: int) -> dict:
        """Counters of a backend since its row was given out, over all workers, ended ones too.

        ``connect_us`` is the histogram of connect times and ``response_us`` that of the times from
        the end of a request to the first byte of its response: one count per bucket, whose bounds
        :func:`histogram_bound` knows. ``status`` counts the backend's responses by class.
        """
        cdef uint32_t seat, index = check(row, MAX_BACKENDS)
        cdef backend_counters_t *counters
        cdef backend_counters_t total
        memset(&total, 0, sizeof(total))
        for seat in range(MAX_SEATS):
            if load32(&self.board.seats[seat].state) == SEAT_FREE:
                continue
            counters = self.board.backend_counters + <size_t> seat * MAX_BACKENDS + index
            total.inflight += counters.inflight
            add_backend(&total, counters)
        return {
            "inflight": total.inflight, "connections": total.connections,
            "refused": total.refused, "timeouts": total.timeouts,
            "early_resets": total.early_resets, "redispatched": total.redispatched,
            "bytes_up": total.bytes_up, "bytes_down": total.bytes_down,
            "connect_us": histogram(total.connect_us),
            "requests": total.requests, "status": by_class(total.status),
            "retries": total.retries, "reused": total.reused,
            "response_us": histogram(total.response_us),
        }

    def listener_totals(self, row: int) -> dict:
        """Counters of a listener.

        ``ended`` counts ended connections by reason, ``http_ended`` the ends of HTTP exchanges.
        """
        cdef uint32_t seat, reason, index = check(row, MAX_LISTENERS)
        cdef listener_counters_t *counters
        cdef listener_counters_t total
        memset(&total, 0, sizeof(total))
        for seat in range(MAX_SEATS):
            if load32(&self.board.seats[seat].state) == SEAT_FREE:
                continue
            counters = self.board.listener_counters + <size_t> seat * MAX_LISTENERS + index
            total.connections += counters.connections
            add_listener(&total, counters)
        return {
            "connections": total.connections, "accepted": total.accepted,
            "bytes_up": total.bytes_up, "bytes_down": total.bytes_down, "paused": total.paused,
            "ended": {END_REASON_NAMES[reason]: total.ended[reason]
                      for reason in range(END_REASONS)},
            "requests": total.requests,
            "http_ended": {name: total.http_ended[reason]
                           for reason, name in enumerate(HTTP_END_NAMES)},
        }

    def route_totals(self, row: int) -> dict:
        """Counters of a route: ``status`` counts what clients were answered, by class.

        ``total_us`` is the histogram of the times that whole exchanges took.
        """
        cdef uint32_t seat, index = check(row, MAX_ROUTES)
        cdef route_counters_t total
        memset(&total, 0, sizeof(total))
        for seat in range(MAX_SEATS):
            if load32(&self.board.seats[seat].state) != SEAT_FREE:
                add_route(&total,
                          self.board.route_counters + <size_t> seat * MAX_ROUTES + index)
        return {
            "requests": total.requests, "status": by_class(total.status),
            "retries": total.retries, "bytes_up": total.bytes_up, "bytes_down": total.bytes_down,
            "total_us": histogram(total.total_us),
        }

    def pool_totals(self, row: int) -> dict:
        """Counters of a pool: ``queued`` connections had to wait for a backend."""
        cdef uint32_t seat, index = check(row, MAX_POOLS)
        cdef pool_counters_t *counters
        cdef uint64_t queued = 0
        cdef uint32_t inflight = 0, waiting = 0
        for seat in range(MAX_SEATS):
            if load32(&self.board.seats[seat].state) == SEAT_FREE:
                continue
            counters = self.board.pool_counters + <size_t> seat * MAX_POOLS + index
            queued += counters.queued
            inflight += counters.inflight
            waiting += counters.waiting
        return {"queued": queued, "inflight": inflight, "waiting": waiting}

    # -- seats

    def seat(self, seat: int) -> dict:
        """What a worker process says of itself."""
        cdef seat_t *s = &self.board.seats[check(seat, MAX_SEATS)]
        return {
            "heartbeat_ms": load64(&s.heartbeat_ms), "pid": s.pid, "slot": s.slot,
            "state": s.state, "plan_version": s.plan_version, "connections": s.connections,
            "pipes": s.pipes, "accepted": s.accepted, "turns": s.turns,
            "accept_pauses": s.accept_pauses, "accept_errors": s.accept_errors,
            "buffers": s.buffers, "sources_untracked": s.sources_untracked,
            "idle_upstreams": s.idle_upstreams, "requests": s.requests,
            "log_dropped": s.log_dropped, "log_lines": s.log_lines, "spool_bytes": s.spool_bytes,
        }

    def heartbeat_ms(self, seat: int) -> int:
        """CLOCK_MONOTONIC in ms when the worker's loop last turned; 0: not yet."""
        return load64(&self.board.seats[check(seat, MAX_SEATS)].heartbeat_ms)

    def take_seat(self, slot: int) -> int:
        """A free seat for a new process of ``slot``. Raises LookupError when all are taken."""
        cdef uint32_t seat
        for seat in range(1, MAX_SEATS):
            if self.board.seats[seat].state == SEAT_FREE:
                memset(&self.board.seats[seat], 0, sizeof(seat_t))
                self.board.seats[seat].slot = slot
                store32(&self.board.seats[seat].state, SEAT_STARTING)
                return seat
        raise LookupError(f"no free seat: {MAX_SEATS - 1} worker processes live already")

    def leave_seat(self, seat: int, backend_rows: int, pool_rows: int, listener_rows: int,
                   route_rows: int = MAX_ROUTES) -> None:
        """Folds an ended worker's counters into seat 0 and frees its seat.

        Connections it still had are taken off the counts of all workers: a crashed worker does
        not leave them behind. ``*_rows`` are the numbers of rows in use: higher ones are not
        looked at.
        """
        cdef uint32_t s = check(seat, MAX_SEATS)
        cdef board_t *board = &self.board
        cdef uint32_t row
        cdef backend_counters_t *backend = board.backend_counters + <size_t> s * MAX_BACKENDS
        cdef listener_counters_t *listener = board.listener_counters + <size_t> s * MAX_LISTENERS
        cdef pool_counters_t *pool = board.pool_counters + <size_t> s * MAX_POOLS
        cdef route_counters_t *route = board.route_counters + <size_t> s * MAX_ROUTES
        for row in range(<uint32_t> backend_rows):
            if backend[row].inflight:
                sub32(&board.backends[row].inflight, backend[row].inflight)
            if counted(&backend[row], sizeof(backend_counters_t)):
                add_backend(board.backend_counters + row, &backend[row])
        for row in range(<uint32_t> pool_rows):
            if pool[row].inflight:
                sub32(&board.pools[row].inflight, pool[row].inflight)
            if pool[row].waiting:
                sub32(&board.pools[row].waiting, pool[row].waiting)
            board.pool_counters[row].queued += pool[row].queued
        for row in range(<uint32_t> listener_rows):
            if listener[row].connections:
                sub32(&board.listeners[row].connections, listener[row].connections)
            if counted(&listener[row], sizeof(listener_counters_t)):
                add_listener(board.listener_counters + row, &listener[row])
        for row in range(<uint32_t> route_rows):
            if counted(&route[row], sizeof(route_counters_t)):
                add_route(board.route_counters + row, &route[row])
        clear(self, backend, MAX_BACKENDS * sizeof(backend_counters_t))
        clear(self, pool, MAX_POOLS * sizeof(pool_counters_t))
        clear(self, listener, MAX_LISTENERS * sizeof(listener_counters_t))
        clear(self, route, MAX_ROUTES * sizeof(route_counters_t))
        clear(self, board.sources + <size_t> s * SOURCE_SLOTS,
              SOURCE_SLOTS * sizeof(source_entry_t))
        store32(&board.seats[s].state, SEAT_FREE)

    def reconcile(self, backend_rows: int, pool_rows: int, listener_rows: int) -> list:
        """Differences between the counts of all workers and the sum of what each one counted.

        A worker killed between two instructions leaves one behind. Returns (kind, row, excess)
        tuples; a difference that stays the same over several calls is such a leak and can be
        taken off with :meth:`adjust`.
        """
        cdef board_t *board = &self.board
        cdef uint32_t row
        cdef long more
        found = []
        for row in range(<uint32_t> backend_rows):
            more = excess(board, &board.backends[row].inflight,
                          &board.backend_counters[row].inflight,
                          <size_t> MAX_BACKENDS * sizeof(backend_counters_t))
            if more:
                found.append(("backend", row, more))
        for row in range(<uint32_t> pool_rows):
            more = excess(board, &board.pools[row].inflight, &board.pool_counters[row].inflight,
                          <size_t> MAX_POOLS * sizeof(pool_counters_t))
            if more:
                found.append(("pool", row, more))
            more = excess(board, &board.pools[row].waiting, &board.pool_counters[row].waiting,
                          <size_t> MAX_POOLS * sizeof(pool_counters_t))
            if more:
                found.append(("waiting", row, more))
        for row in range(<uint32_t> listener_rows):
            more = excess(board, &board.listeners[row].connections,
                          &board.listener_counters[row].connections,
                          <size_t> MAX_LISTENERS * sizeof(listener_counters_t))
            if more:
                found.append(("listener", row, more))
        return found

    def adjust(self, kind: str, row: int, excess: int) -> None:
        """Takes a leaked difference off the count of all workers."""
        cdef uint32_t delta = <uint32_t> (<long> excess)
        if kind == "backend":
            sub32(&self.board.backends[check(row, MAX_BACKENDS)].inflight, delta)
        elif kind == "pool":
            sub32(&self.board.pools[check(row, MAX_POOLS)].inflight, delta)
        elif kind == "waiting":
            sub32(&self.board.pools[check(row, MAX_POOLS)].waiting, delta)
        else:
            sub32(&self.board.listeners[check(row, MAX_LISTENERS)].connections, delta)


cdef long excess(const board_t *board, const uint32_t *live, const uint32_t *counted,
                 size_t stride) noexcept nogil:
    """How much a count of all workers exceeds the sum of what each counted, ``stride`` bytes apart.

    Workers go on counting meanwhile: a sum during which the count moved is taken again.
    """
    cdef uint32_t before, total, seat, _attempt
    for _attempt in range(8):
        before = load32(live)
        total = 0
        for seat in range(1, MAX_SEATS):
            if load32(&board.seats[seat].state) != SEAT_FREE:
                total += load32(<const uint32_t *> (<const char *> counted + seat * stride))
        if load32(live) == before:
            return <long> before - <long> total
    return 0


cdef uint32_t check(index, uint32_t limit) except? 0xFFFFFFFF:
    if not 0 <= index < limit:
        raise IndexError(f"scoreboard index {index} is outside 0..{limit - 1}")
    return index


cdef void clear(Scoreboard board, void *start, size_t size) noexcept:
    """Zeros whole pages. By a hole: writing zeros takes the memory that is to be given back."""
    if fallocate(board.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                 <char *> start - <char *> board.base, size) < 0:
        memset(start, 0, size)


cdef bint counted(const void *counters, size_t size) noexcept nogil:
    """Whether a row of counters has anything in it: adding nothing would take memory, too."""
    cdef const uint64_t *word = <const uint64_t *> counters
    cdef size_t n
    for n in range(size // sizeof(uint64_t)):
        if word[n]:
            return True
    return False


cdef histogram(const uint32_t *buckets):
    return [buckets[bucket] for bucket in range(HISTOGRAM_BUCKETS)]


cdef by_class(const uint64_t *status):
    return {name: status[n] for n, name in enumerate(STATUS_NAMES)}


cdef void add_backend(backend_counters_t *total, const backend_counters_t *part) noexcept nogil:
    cdef uint32_t bucket, status
    total.connections += part.connections
    total.refused += part.refused
    total.timeouts += part.timeouts
    total.early_resets += part.early_resets
    total.redispatched += part.redispatched
    total.bytes_up += part.bytes_up
    total.bytes_down += part.bytes_down
    total.requests += part.requests
    total.retries += part.retries
    total.reused += part.reused
    for status in range(6):
        total.status[status] += part.status[status]
    for bucket in range(HISTOGRAM_BUCKETS):
        total.connect_us[bucket] += part.connect_us[bucket]
        total.response_us[bucket] += part.response_us[bucket]


cdef void add_listener(listener_counters_t *total, const listener_counters_t *part) noexcept nogil:
    cdef uint32_t reason
    total.accepted += part.accepted
    total.paused += part.paused
    total.bytes_up += part.bytes_up
    total.bytes_down += part.bytes_down
    for reason in range(END_REASONS):
        total.ended[reason] += part.ended[reason]
    total.requests += part.requests
    for reason in range(HTTP_ENDS):
        total.http_ended[reason] += part.http_ended[reason]


cdef void add_route(route_counters_t *total, const route_counters_t *part) noexcept nogil:
    cdef uint32_t bucket, status
    total.requests += part.requests
    total.retries += part.retries
    total.bytes_up += part.bytes_up
    total.bytes_down += part.bytes_down
    for status in range(6):
        total.status[status] += part.status[status]
    for bucket in range(HISTOGRAM_BUCKETS):
        total.total_us[bucket] += part.total_us[bucket]
