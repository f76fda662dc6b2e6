# Figures: the counters of many rows of the scoreboard at one moment, for metrics and live views.
#
# Reading a thousand backends one dictionary at a time takes a supervisor that also has health
# checks to make too long. Here they are summed over the seats into one block of memory, and
# Python is given what it asks for: numbers, buckets, quantiles between two moments.
#
# Workers go on counting meanwhile. Every single number is one that was true at some moment of the
# reading; numbers that belong together may be apart by what was counted in those microseconds.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from lbcore._scoreboard cimport (
    END_REASONS,
    HISTOGRAM_BUCKETS,
    MAX_BACKENDS,
    MAX_LISTENERS,
    MAX_POOLS,
    MAX_ROUTES,
    MAX_SEATS,
    SEAT_FREE,
    Scoreboard,
    backend_counters_t,
    board_t,
    listener_counters_t,
    pool_counters_t,
    route_counters_t,
)
from lbcore.includes.atomics cimport load32

from lbcore._scoreboard import (
    END_REASON_NAMES as _END_REASONS,
    HTTP_END_NAMES as _HTTP_ENDS,
    STATUS_NAMES as _STATUSES,
    histogram_bound as _bound,
)

# What each number of a row is, in this order. ``inflight``, ``waiting`` and a listener's
# ``connections`` are of now, the others count up for as long as the row has its owner.
BACKEND_FIELDS = (
    "inflight", "connections", "refused", "timeouts", "early_resets", "redispatched", "bytes_up",
    "bytes_down", "requests", "retries", "reused",
    *(f"status_{name}" for name in _STATUSES))
LISTENER_FIELDS = (
    "connections", "accepted", "paused", "bytes_up", "bytes_down", "requests",
    *(f"ended_{name}" for name in _END_REASONS),
    *(f"http_ended_{name}" for name in _HTTP_ENDS))
ROUTE_FIELDS = ("requests", "retries", "bytes_up", "bytes_down",
                *(f"status_{name}" for name in _STATUSES))
POOL_FIELDS = ("inflight", "waiting", "queued")

CONNECT = 0         # histograms of a backend: how long connecting took,
RESPONSE = 1        # and from the end of a request to the first byte of its response
BUCKETS = HISTOGRAM_BUCKETS

cdef uint64_t[HISTOGRAM_BUCKETS] bounds
for _bucket in range(HISTOGRAM_BUCKETS):
    bounds[_bucket] = _bound(_bucket)


cdef class Figures:
    """Rows of one kind as they were at one moment, in the order in which they were asked for.

    ``fields`` names the numbers. Backends have the histograms CONNECT and RESPONSE, or only one
    of them as histogram 0, routes have one, of the time that whole exchanges took.
    """

    cdef uint64_t *_numbers
    cdef uint32_t *_buckets
    cdef size_t rows
    cdef size_t width
    cdef size_t histograms
    cdef readonly tuple fields

    def __cinit__(self):
        self._numbers = NULL
        self._buckets = NULL

    def __dealloc__(self):
        free(self._numbers)
        free(self._buckets)

    def __len__(self):
        return self.rows

    def __sizeof__(self):
        return object.__sizeof__(self) + self.rows * (
            self.width * sizeof(uint64_t) + self.histograms * HISTOGRAM_BUCKETS * sizeof(uint32_t))

    cdef uint64_t *numbers_of(self, index) except NULL:
        if not 0 <= index < self.rows:
            raise IndexError(f"there are {self.rows} rows")
        return self._numbers + <size_t> index * self.width

    cdef uint32_t *buckets_of(self, index, which) except NULL:
        if not (0 <= index < self.rows and 0 <= which < self.histograms):
            raise IndexError(f"there are {self.rows} rows with {self.histograms} histograms")
        return self._buckets + (<size_t> index * self.histograms + <size_t> which) * \
            HISTOGRAM_BUCKETS

    def numbers(self, index: int) -> tuple:
        """The numbers of one row, as ``fields`` names them. Raises IndexError."""
        cdef uint64_t *found = self.numbers_of(index)
        cdef size_t at
        return tuple([found[at] for at in range(self.width)])

    def since(self, index: int, older: Figures, at: int) -> tuple:
        """How much the numbers of a row have grown since it was row ``at`` of older figures.

        A row that was cleared in between has grown by what it has now. Raises IndexError.
        """
        cdef uint64_t *new = self.numbers_of(index)
        cdef uint64_t *old = older.numbers_of(at)
        cdef size_t field
        return tuple([new[field] - old[field] if new[field] >= old[field] else new[field]
                      for field in range(self.width)])

    def histogram(self, index: int, which: int = 0) -> list:
        """The counts of one histogram, by bucket. Raises IndexError."""
        cdef uint32_t *found = self.buckets_of(index, which)
        cdef size_t bucket
        return [found[bucket] for bucket in range(HISTOGRAM_BUCKETS)]


cdef class Histogram:
    """Durations of several rows taken together, in microseconds."""

    cdef uint64_t[HISTOGRAM_BUCKETS] counts
    cdef readonly unsigned long long total

    def __cinit__(self):
        self.total = 0
        for bucket in range(HISTOGRAM_BUCKETS):
            self.counts[bucket] = 0

    def add(self, figures: Figures, index: int, which: int = 0) -> None:
        """Adds what a row has counted. Raises IndexError."""
        cdef uint32_t *found = (<Figures?> figures).buckets_of(index, which)
        cdef size_t bucket
        for bucket in range(HISTOGRAM_BUCKETS):
            self.counts[bucket] += found[bucket]
            self.total += found[bucket]

    def add_since(self, figures: Figures, index: int, which: int, older: Figures, at: int) -> None:
        """Adds what a row has counted since it was row ``at`` of older figures. Raises IndexError.

        A row that was cleared in between has counted what it has now.
        """
        cdef uint32_t *new = (<Figures?> figures).buckets_of(index, which)
        cdef uint32_t *old = (<Figures?> older).buckets_of(at, which)
        cdef size_t bucket
        cdef bint cleared = False
        for bucket in range(HISTOGRAM_BUCKETS):
            # Counts wrap at 32 bits; no row counts half of that between two looks at it.
            if new[bucket] - old[bucket] > 0x80000000u:
                cleared = True
        cdef uint32_t more
        for bucket in range(HISTOGRAM_BUCKETS):
            more = new[bucket] if cleared else new[bucket] - old[bucket]
            self.counts[bucket] += more
            self.total += more

    def merge(self, other: Histogram) -> None:
        """Adds what another has."""
        cdef Histogram from_ = <Histogram?> other
        cdef size_t bucket
        for bucket in range(HISTOGRAM_BUCKETS):
            self.counts[bucket] += from_.counts[bucket]
        self.total += from_.total

    def quantile(self, percent: float) -> object:
        """The duration that so many in a hundred stayed below, as the bound of its bucket.

        None when nothing was counted.
        """
        cdef uint64_t seen = 0
        cdef size_t bucket
        if not self.total:
            return None
        for bucket in range(HISTOGRAM_BUCKETS):
            seen += self.counts[bucket]
            if seen * 100.0 >= self.total * <double> percent:
                return bounds[bucket]
        return bounds[HISTOGRAM_BUCKETS - 1]

    def up_to(self, limits: tuple) -> list:
        """How many took at most each of these durations, which must rise; all in the last place.

        A bucket that a limit cuts through counts as above it.
        """
        cdef uint64_t seen = 0
        cdef size_t bucket = 0
        found = []
        for limit in limits:
            # A bucket holds what is below its bound.
            while bucket < HISTOGRAM_BUCKETS - 1 and bounds[bucket] <= <uint64_t> limit + 1:
                seen += self.counts[bucket]
                bucket += 1
            found.append(seen)
        found.append(self.total)
        return found

    def estimated_sum(self) -> float:
        """All durations together, taking each for the middle of its bucket, in microseconds."""
        cdef double found = 0
        cdef size_t bucket
        for bucket in range(HISTOGRAM_BUCKETS):
            if self.counts[bucket]:
                found += self.counts[bucket] * (
                    (bounds[bucket - 1] if bucket else 0) + bounds[bucket] - 1) / 2.0
        return found


cdef Figures make(rows, fields, size_t histograms):
    cdef Figures self = Figures()
    self.rows = len(rows)
    self.fields = fields
    self.width = len(fields)
    self.histograms = histograms
    self._numbers = <uint64_t *> calloc(max(1, self.rows * self.width), sizeof(uint64_t))
    self._buckets = <uint32_t *> calloc(
        max(1, self.rows * histograms * HISTOGRAM_BUCKETS), sizeof(uint32_t))
    if self._numbers == NULL or self._buckets == NULL:
        raise MemoryError
    return self


cdef list seats_in_use(const board_t *board):
    cdef uint32_t seat
    return [seat for seat in range(MAX_SEATS) if load32(&board.seats[seat].state) != SEAT_FREE]


cdef uint32_t check(row, uint32_t limit) except? 0xFFFFFFFF:
    if not 0 <= row < limit:
        raise IndexError(f"scoreboard row {row} is outside 0..{limit - 1}")
    return row


cdef void add_buckets(uint32_t *total, const uint32_t *part) noexcept nogil:
    cdef size_t bucket
    for bucket in range(HISTOGRAM_BUCKETS):
        total[bucket] += part[bucket]


def backends(board: Scoreboard, rows: list, only: list | None = None) -> Figures:
    """Figures of the backends in these rows.

    ``only`` says for each row which histogram to read, CONNECT or RESPONSE: it is histogram 0
    then, and the other is not there. Raises IndexError for a row that cannot be.
    """
    cdef Figures found = make(rows, BACKEND_FIELDS, 2 if only is None else 1)
    cdef const board_t *b = &(<Scoreboard?> board).board
    cdef const backend_counters_t *part
    cdef uint64_t *n
    cdef uint32_t *h
    cdef uint32_t row, status, seat
    cdef size_t index
    cdef int which = -1
    seats = seats_in_use(b)
    for index in range(found.rows):
        row = check(rows[index], MAX_BACKENDS)
        if only is not None:
            which = only[index]
        n = found._numbers + index * found.width
        h = found._buckets + index * found.histograms * HISTOGRAM_BUCKETS
        n[0] = load32(&b.backends[row].inflight)
        for seat in seats:
            part = b.backend_counters + <size_t> seat * MAX_BACKENDS + row
            n[1] += part.connections
            n[2] += part.refused
            n[3] += part.timeouts
            n[4] += part.early_resets
            n[5] += part.redispatched
            n[6] += part.bytes_up
            n[7] += part.bytes_down
            n[8] += part.requests
            n[9] += part.retries
            n[10] += part.reused
            for status in range(6):
                n[11 + status] += part.status[status]
            if which != RESPONSE:
                add_buckets(h, part.connect_us)
            if which != CONNECT:
                add_buckets(h if which == RESPONSE else h + HISTOGRAM_BUCKETS, part.response_us)
    return found


def listeners(board: Scoreboard, rows: list) -> Figures:
    """Figures of the listeners in these rows. Raises IndexError for a row that cannot be."""
    cdef Figures found = make(rows, LISTENER_FIELDS, 0)
    cdef const board_t *b = &(<Scoreboard?> board).board
    cdef const listener_counters_t *part
    cdef uint64_t *n
    cdef uint32_t row, reason, seat
    cdef uint32_t http_ends = len(_HTTP_ENDS)
    cdef size_t index
    seats = seats_in_use(b)
    for index in range(found.rows):
        row = check(rows[index], MAX_LISTENERS)
        n = found._numbers + index * found.width
        n[0] = load32(&b.listeners[row].connections)
        for seat in seats:
            part = b.listener_counters + <size_t> seat * MAX_LISTENERS + row
            n[1] += part.accepted
            n[2] += part.paused
            n[3] += part.bytes_up
            n[4] += part.bytes_down
            n[5] += part.requests
            for reason in range(END_REASONS):
                n[6 + reason] += part.ended[reason]
            for reason in range(http_ends):
                n[6 + END_REASONS + reason] += part.http_ended[reason]
    return found


def routes(board: Scoreboard, rows: list) -> Figures:
    """Figures of the routes in these rows. Raises IndexError for a row that cannot be."""
    cdef Figures found = make(rows, ROUTE_FIELDS, 1)
    cdef const board_t *b = &(<Scoreboard?> board).board
    cdef const route_counters_t *part
    cdef uint64_t *n
    cdef uint32_t row, status, seat
    cdef size_t index
    seats = seats_in_use(b)
    for index in range(found.rows):
        row = check(rows[index], MAX_ROUTES)
        n = found._numbers + index * found.width
        for seat in seats:
            part = b.route_counters + <size_t> seat * MAX_ROUTES + row
            n[0] += part.requests
            n[1] += part.retries
            n[2] += part.bytes_up
            n[3] += part.bytes_down
            for status in range(6):
                n[4 + status] += part.status[status]
            add_buckets(found._buckets + index * HISTOGRAM_BUCKETS, part.total_us)
    return found


def pools(board: Scoreboard, rows: list) -> Figures:
    """Figures of the pools in these rows. Raises IndexError for a row that cannot be."""
    cdef Figures found = make(rows, POOL_FIELDS, 0)
    cdef const board_t *b = &(<Scoreboard?> board).board
    cdef const pool_counters_t *part
    cdef uint64_t *n
    cdef uint32_t row, seat
    cdef size_t index
    seats = seats_in_use(b)
    for index in range(found.rows):
        row = check(rows[index], MAX_POOLS)
        n = found._numbers + index * found.width
        n[0] = load32(&b.pools[row].inflight)
        n[1] = load32(&b.pools[row].waiting)
        for seat in seats:
            part = b.pool_counters + <size_t> seat * MAX_POOLS + row
            n[2] += part.queued
    return found
