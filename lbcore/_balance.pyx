# Backend selection. The door is in _balance.pxd; docs/balancing.md says what each algorithm is for.
#
# From top to bottom: who may take a connection, the algorithms, the workers' door (pick, release),
# and the same door for Python (Selector). Tables and hashes of consistent hashing are in _tables.
#
# To add an algorithm:
#   1. give it a value in _plan.pxd (Algorithm) and a name in _plan.pyx (ALGORITHMS);
#   2. write `cdef int by_<name>(search_t *s) noexcept nogil` beside the others. It looks at the
#      tier's backends 0 .. s.count - 1, asks `open_weight` who may take the connection, decides,
#      and returns what `reserve` confirmed, or `nobody(s)`. Fail-over needs nothing more: whoever
#      this connection was given before has an open weight of 0;
#   3. add it to the switch in `pick_in_tier`;
#   4. put its test into tests/unit/test_balance_<name>.py, on the model of its neighbours.

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from lbcore._plan cimport (
    KETAMA, LEAST_CONN, MAGLEV, RANDOM, backend_t, map_image, plan_header_t, plan_pools,
    pool_backends, pool_t, ring_point_t, unmap_image,
)
from lbcore._scoreboard cimport (
    MAX_BACKENDS, MAX_POOLS, MAX_SEATS, POOL_BACKUP, POOL_PANIC, STATE_DOWN, STATE_DRAIN,
    STATE_EJECTED, STATE_UP, Scoreboard, backend_counters_t, backend_live_t, board_t,
    pool_counters_t, pool_live_t,
)
from lbcore._tables cimport crc32, mix, sip
from lbcore.includes.atomics cimport add32, add_below32, load32, store32, sub32

cdef enum:
    RAMPED = 256                # ramp of a backend that is not in slow start
    WALK_LIMIT = 512            # table entries looked at before every backend is
    RACES = 4                   # lost against other workers before the first place will do

cdef uint64_t SETTLED = <uint64_t> 1 << 63      # sets a shape apart from one never written


# ---- who may take a connection -----------------------------------------------------------------

ctypedef struct search_t:       # one pick in one tier: the primaries, or the backups
    picker_t *picker
    const plan_header_t *plan
    const pool_t *pool
    const backend_t *backends   # of the tier
    pool_live_t *live
    cursor_t *cursor
    const void *table           # of the tier; consistent only
    uint32_t table_length
    uint32_t first              # index within the pool of the tier's first backend
    uint32_t count
    bint panic
    bint full                   # out: somebody is eligible, but at max_connections
    bint held                   # out: somebody is eligible, but above the bound or warming up
    uint64_t mean_over          # load bound: (pool's connections + 1) x per mille
    uint64_t mean_under         # load bound: pool's weight x 1000


cdef inline backend_live_t *live_of(search_t *s, uint32_t i) noexcept nogil:
    return s.picker.board.backends + s.backends[i].row


cdef inline uint32_t ramped(const backend_live_t *live) noexcept nogil:
    """The weight in force now, in 1/256. Slow start never takes all of it: a backend that warms
    up may be the only one."""
    return live.weight * (live.ramp if live.ramp else 1)


cdef inline bint in_service(const search_t *s, const backend_live_t *live) noexcept nogil:
    return live.weight != 0 and (live.state == STATE_UP or (
        s.panic and (live.state == STATE_DOWN or live.state == STATE_EJECTED)))


cdef inline uint32_t open_weight(search_t *s, uint32_t i) noexcept nogil:
    """The weight, in 1/256, of a backend that may take this connection; 0 for one that may not."""
    cdef backend_live_t *live = live_of(s, i)
    cdef uint32_t most, n
    if not in_service(s, live):
        return 0
    for n in range(s.cursor.tried_count):
        if s.cursor.tried[n] == s.first + i:
            return 0
    most = s.backends[i].max_connections
    if most and load32(&live.inflight) >= most:
        s.full = True
        return 0
    return ramped(live)


cdef bint reserve(search_t *s, uint32_t i, uint32_t most) noexcept nogil:
    """Takes a place unless there are ``most`` already (0: no limit) or max_connections."""
    cdef picker_t *picker = s.picker
    cdef const backend_t *backend = s.backends + i
    cdef backend_live_t *live = live_of(s, i)
    cdef backend_counters_t *counters
    cdef pool_counters_t *pool_counters
    if backend.max_connections and (most == 0 or backend.max_connections < most):
        most = backend.max_connections
    if most == 0:
        add32(&live.inflight, 1)
    elif not add_below32(&live.inflight, most):
        return False
    counters = picker.board.backend_counters + <size_t> picker.seat * MAX_BACKENDS + backend.row
    store32(&counters.inflight, counters.inflight + 1)
    add32(&s.live.inflight, 1)
    pool_counters = picker.board.pool_counters + <size_t> picker.seat * MAX_POOLS + s.pool.row
    store32(&pool_counters.inflight, pool_counters.inflight + 1)
    return True


cdef inline int nobody(search_t *s) noexcept nogil:
    return PICK_FULL if s.full else PICK_NONE


cdef uint32_t draw(picker_t *picker, uint64_t below) noexcept nogil:
    """A random number in 0 .. below - 1; below at most 2^32."""
    picker.rng += 0x9E3779B97F4A7C15ULL
    return <uint32_t> (((mix(picker.rng) >> 32) * below) >> 32)


# ---- round_robin -------------------------------------------------------------------------------
#
# Smooth weighted round robin: at each pick everybody who may take the connection gains his weight,
# and who is furthest behind takes it and pays the weights of all. What he is behind by is his lag.

cdef void settle_lags(search_t *s) noexcept nogil:
    """Gives a lag to backends that this worker sees for the first time, and keeps lags of other
    weights or plans from outlasting them. Rows come with a plan, and the supervisor writes the
    pool's weight with every change of a backend, so as a rule there is nothing to do."""
    cdef picker_t *picker = s.picker
    cdef uint64_t total = 0
    cdef uint64_t shape = (<uint64_t> load32(&s.live.total_weight) << 32) | s.plan.version | SETTLED
    cdef uint64_t *last = picker.shape + 2 * s.pool.row + (1 if s.first else 0)
    cdef int64_t limit
    cdef int64_t *lag
    cdef uint32_t i, fresh = 0
    if shape == last[0]:
        return
    last[0] = shape
    for i in range(s.count):
        total += ramped(live_of(s, i))
        if not picker.seen[s.backends[i].row]:
            fresh += 1
    if total == 0:
        last[0] = 0
        return
    limit = <int64_t> total
    for i in range(s.count):
        lag = picker.lag + s.backends[i].row
        if fresh == s.count:
            # In the order of the file, each worker from another place in it.
            lag[0] = -<int64_t> ((total * i // s.count + ((total * picker.offset) >> 32)) % total)
        elif not picker.seen[s.backends[i].row]:
            lag[0] = -<int64_t> draw(picker, total)
        picker.seen[s.backends[i].row] = 1
        if lag[0] > limit:
            lag[0] = limit
        elif lag[0] < -limit:
            lag[0] = -limit


cdef int furthest_behind(search_t *s, uint64_t load, uint64_t weight) noexcept nogil:
    """One step of smooth weighted round robin among those with at most ``load`` connections for
    each ``weight``; a weight of 0 admits all."""
    cdef int64_t *lag = s.picker.lag
    cdef int64_t most = 0
    cdef int64_t total = 0
    cdef uint32_t i, mine, row
    cdef int best = PICK_NONE
    settle_lags(s)
    for i in range(s.count):
        mine = open_weight(s, i)
        if mine == 0 or (weight and load32(&live_of(s, i).inflight) * weight > load * mine):
            continue
        row = s.backends[i].row
        lag[row] += mine
        total += mine
        if best < 0 or lag[row] > most:
            best = <int> i
            most = lag[row]
    if best >= 0:
        lag[s.backends[best].row] -= total
    return best


cdef int by_round_robin(search_t *s) noexcept nogil:
    cdef int best = PICK_NONE
    cdef uint32_t _race
    for _race in range(RACES):
        best = furthest_behind(s, 0, 0)
        if best < 0:
            return nobody(s)
        if reserve(s, best, 0):
            return best
    return any_place(s)


cdef int any_place(search_t *s) noexcept nogil:
    """For a pick that lost every race: the first place there is."""
    cdef uint32_t i
    for i in range(s.count):
        if open_weight(s, i) and reserve(s, i, 0):
            return <int> i
    return nobody(s)


# ---- least_conn --------------------------------------------------------------------------------

cdef int by_least_conn(search_t *s) noexcept nogil:
    """Fewest connections for its weight, over all workers; equals take weighted turns.

    Turns, not the heaviest: with little traffic everybody has no connection at all, and weights
    must hold then too.
    """
    cdef uint64_t load, weight, inflight
    cdef uint32_t i, mine, _race
    cdef uint32_t equals = 0
    cdef int best = PICK_NONE
    for _race in range(RACES):
        load = 0
        weight = 0
        for i in range(s.count):
            mine = open_weight(s, i)
            if mine == 0:
                continue
            inflight = load32(&live_of(s, i).inflight)
            if weight == 0 or inflight * weight < load * mine:
                load = inflight
                weight = mine
                best = <int> i
                equals = 1
            elif inflight * weight == load * mine:
                equals += 1
        if weight == 0:
            return nobody(s)
        if equals > 1:
            best = furthest_behind(s, load, weight)
        if best >= 0 and reserve(s, best, 0):
            return best
    return any_place(s)


# ---- random ------------------------------------------------------------------------------------

cdef int drawn(search_t *s, uint64_t total, int without) noexcept nogil:
    """A backend drawn by weight, ``total`` being the weights of all but ``without``."""
    cdef uint32_t i, mine
    cdef int last = PICK_NONE
    cdef int64_t rest = draw(s.picker, total)
    for i in range(s.count):
        if <int> i == without:
            continue
        mine = open_weight(s, i)
        if mine == 0:
            continue
        last = <int> i
        rest -= mine
        if rest < 0:
            break
    return last     # weights may have shrunk since they were added up


cdef int by_random(search_t *s) noexcept nogil:
    """Power of two choices (Mitzenmacher 2001): of two drawn by weight, the one with fewer
    connections for its weight."""
    cdef uint64_t total
    cdef uint32_t i, _race, weight_a, weight_b
    cdef int a, b
    for _race in range(RACES):
        total = 0
        for i in range(s.count):
            total += open_weight(s, i)
        if total == 0:
            return nobody(s)
        a = drawn(s, total, PICK_NONE)
        if a < 0:
            return nobody(s)
        weight_a = ramped(live_of(s, a))
        b = drawn(s, total - weight_a, a) if weight_a < total else PICK_NONE
        if b >= 0:
            weight_b = ramped(live_of(s, b))
            if (<uint64_t> load32(&live_of(s, b).inflight) * weight_a
                    < <uint64_t> load32(&live_of(s, a).inflight) * weight_b):
                a, b = b, a
        if reserve(s, a, 0):
            return a
        if b >= 0 and reserve(s, b, 0):
            return b
    return any_place(s)


# ---- consistent: maglev and ketama -------------------------------------------------------------
#
# A key has an order of candidates that depends on the table alone: the entry it hashes to and those
# it comes to from there, then, where so few are eligible that these do not find them, all backends
# by rendezvous.
# Each pick takes the first candidate of that order that is eligible, so a backend that fails or
# fills moves its own keys and nobody else's, and they come back when it does.

cdef uint32_t first_point(const ring_point_t *ring, uint32_t length, uint32_t hash) noexcept nogil:
    """Index of the first point at or after ``hash``; ``length`` when there is none."""
    cdef uint32_t low = 0, high = length, middle
    while low < high:
        middle = low + (high - low) // 2
        if ring[middle].hash < hash:
            low = middle + 1
        else:
            high = middle
    return low


cdef void prepare_bound(search_t *s) noexcept nogil:
    cdef uint64_t weight = load32(&s.live.total_weight) if s.first == 0 else 0
    cdef uint32_t i
    if weight == 0:     # not known for backups
        for i in range(s.count):
            if in_service(s, live_of(s, i)):
                weight += live_of(s, i).weight
    s.mean_over = (<uint64_t> load32(&s.live.inflight) + 1) * s.pool.load_bound
    s.mean_under = (weight if weight else 1) * 1000


cdef inline uint32_t place_limit(search_t *s, uint32_t i) noexcept nogil:
    """Connections a backend may have under the load bound, the next one included; 0: no bound.

    Mirrokni, Thorup, Zadimoghaddam 2018: nobody above c x mean, rounded up.
    """
    cdef uint64_t most
    if s.pool.load_bound == 0:
        return 0
    most = (s.mean_over * live_of(s, i).weight + s.mean_under - 1) // s.mean_under
    return <uint32_t> most if most < UINT32_MAX else UINT32_MAX


cdef bint holds_back(search_t *s, uint32_t i) noexcept nogil:
    """Whether an eligible backend leaves this key to the next one: above the bound, warming up."""
    cdef const backend_live_t *live = live_of(s, i)
    # Keys come back to a recovered backend one after another, and stay.
    if live.ramp < RAMPED and (s.cursor.second & 0xFF) >= live.ramp:
        s.held = True
    elif s.pool.load_bound and load32(&live.inflight) >= place_limit(s, i):
        s.held = True
    else:
        return False
    return True


cdef inline int try_candidate(search_t *s, uint32_t i, bint strict) noexcept nogil:
    """Takes the i-th backend if it may have this key now. Strict keeps slow start and bound."""
    if open_weight(s, i) == 0 or (strict and holds_back(s, i)):
        return PICK_NONE
    return <int> i if reserve(s, i, place_limit(s, i) if strict else 0) else PICK_NONE


cdef int along_table(search_t *s, bint strict) noexcept nogil:
    cdef const uint16_t *entries = <const uint16_t *> s.table
    cdef const ring_point_t *ring = <const ring_point_t *> s.table
    cdef uint32_t length = s.table_length
    cdef uint32_t at, _step, i
    cdef uint32_t stride = 1
    cdef uint32_t last = s.count
    cdef bint maglev = s.pool.algorithm == MAGLEV
    cdef int found
    if length == 0:
        return PICK_NONE
    if maglev:
        # Neighbours in the table are not independent: with few backends, who comes after a given
        # one is mostly the same. So each key goes on in steps of its own; the length is prime.
        at = <uint32_t> ((<uint64_t> s.cursor.hash * length) >> 32)
        stride += <uint32_t> ((<uint64_t> s.cursor.second * (length - 1)) >> 32)
    else:
        at = first_point(ring, length, s.cursor.hash)
    for _step in range(length if length < WALK_LIMIT else WALK_LIMIT):
        if at >= length:
            at -= length
        i = entries[at] if maglev else ring[at].backend
        at += stride
        if i == last:
            continue
        last = i
        found = try_candidate(s, i, strict)
        if found >= 0:
            return found
    return PICK_NONE


cdef int by_rendezvous(search_t *s, bint strict) noexcept nogil:
    """The candidate whose hash with the key is highest (Thaler, Ravishankar 1998).

    The last resort when nearly all of a large pool is away; hashes addresses, on which several
    nodes agree, unlike rows.
    """
    cdef const backend_t *backend
    cdef uint64_t key = (<uint64_t> s.cursor.hash << 32) | s.cursor.second
    cdef uint64_t score, best_score = 0
    cdef uint32_t i
    cdef int best = PICK_NONE
    for i in range(s.count):
        if open_weight(s, i) == 0 or (strict and holds_back(s, i)):
            continue
        backend = s.backends + i
        score = sip(backend.address, backend.address_length, key)
        if best < 0 or score > best_score:
            best = <int> i
            best_score = score
    return try_candidate(s, best, strict) if best >= 0 else PICK_NONE


cdef int by_key(search_t *s) noexcept nogil:
    cdef int found
    if s.pool.load_bound:
        prepare_bound(s)
    found = along_table(s, True)
    if found < 0:
        found = by_rendezvous(s, True)
    if found >= 0 or not s.held:
        return found if found >= 0 else nobody(s)
    # Whoever is left warms up or is above the bound, and somebody must take it.
    if s.pool.load_bound:
        return by_least_conn(s)
    found = along_table(s, False)
    if found < 0:
        found = by_rendezvous(s, False)
    return found if found >= 0 else any_place(s)


# ---- the workers' door -------------------------------------------------------------------------

cdef int pick_in_tier(search_t *s, bint backups) noexcept nogil:
    """An index within the pool, or PICK_NONE or PICK_FULL."""
    cdef const pool_t *pool = s.pool
    cdef uint32_t algorithm = pool.algorithm
    cdef int found
    s.first = pool.primary_count if backups else 0
    s.count = pool.backup_count if backups else pool.primary_count
    if s.count == 0:
        return PICK_NONE
    s.backends = pool_backends(s.plan, pool) + s.first
    s.full = False
    s.held = False
    if algorithm == MAGLEV or algorithm == KETAMA:
        s.table_length = pool.backup_table_length if backups else pool.table_length
        s.table = <const char *> s.plan + (
            pool.backup_table_offset if backups else pool.table_offset)
        found = by_key(s)
    elif algorithm == LEAST_CONN:
        found = by_least_conn(s)
    elif algorithm == RANDOM:
        found = by_random(s)
    else:
        found = by_round_robin(s)
    return found + <int> s.first if found >= 0 else found


cdef bint picker_init(picker_t *picker, const board_t *board, uint32_t seat) noexcept nogil:
    """False without memory."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    memset(picker, 0, sizeof(picker_t))
    picker.board = board
    picker.seat = seat
    picker.rng = mix(mix(<uint64_t> now.tv_sec * 1000000000 + now.tv_nsec) + seat)
    # Multiples of the golden ratio spread however many workers there are evenly over the cycle;
    # the secret keeps several nodes in front of the same backends from marching in step.
    picker.offset = seat * 0x9E3779B9U + <uint32_t> mix(board.header.secret[0])
    picker.lag = <int64_t *> calloc(MAX_BACKENDS, sizeof(int64_t))
    picker.seen = <uint8_t *> calloc(MAX_BACKENDS, sizeof(uint8_t))
    picker.shape = <uint64_t *> calloc(2 * MAX_POOLS, sizeof(uint64_t))
    if picker.lag == NULL or picker.seen == NULL or picker.shape == NULL:
        picker_free(picker)
        return False
    return True


cdef void picker_free(picker_t *picker) noexcept nogil:
    free(picker.lag)
    free(picker.seen)
    free(picker.shape)
    memset(picker, 0, sizeof(picker_t))


cdef void cursor_begin(cursor_t *cursor, const pool_t *pool, const char *key,
                       size_t length) noexcept nogil:
    cdef uint64_t hash
    memset(cursor, 0, sizeof(cursor_t))
    if pool.algorithm == MAGLEV:
        hash = sip(<const uint8_t *> key, length, 0)
        cursor.hash = <uint32_t> (hash >> 32)
        cursor.second = <uint32_t> hash
    elif pool.algorithm == KETAMA:
        cursor.hash = crc32(<const uint8_t *> key, length, 0)
        cursor.second = <uint32_t> mix(cursor.hash)


cdef int pick(picker_t *picker, const plan_header_t *plan, const pool_t *pool,
              cursor_t *cursor) noexcept nogil:
    cdef search_t s
    cdef uint32_t flags
    cdef int found
    if cursor.tried_count >= MAX_TRIED:
        return PICK_NONE
    memset(&s, 0, sizeof(s))
    s.picker = picker
    s.plan = plan
    s.pool = pool
    s.cursor = cursor
    s.live = picker.board.pools + pool.row
    flags = load32(&s.live.flags)
    s.panic = flags & POOL_PANIC
    found = pick_in_tier(&s, (flags & POOL_BACKUP) != 0)
    if found == PICK_NONE:
        found = pick_in_tier(&s, (flags & POOL_BACKUP) == 0)
    if found >= 0:
        cursor.tried[cursor.tried_count] = <uint16_t> found
        cursor.tried_count += 1
    return found


cdef int pick_this(picker_t *picker, const plan_header_t *plan, const pool_t *pool,
                   cursor_t *cursor, int index) noexcept nogil:
    """Takes no part in turns, bounds or slow start: whoever keeps sessions has them anyway."""
    cdef search_t s
    cdef uint32_t n
    cdef uint8_t state
    if index < 0 or <uint32_t> index >= pool.primary_count + pool.backup_count:
        return PICK_NONE
    if cursor.tried_count >= MAX_TRIED:
        return PICK_NONE
    for n in range(cursor.tried_count):
        if cursor.tried[n] == <uint32_t> index:
            return PICK_NONE
    memset(&s, 0, sizeof(s))
    s.picker = picker
    s.plan = plan
    s.pool = pool
    s.cursor = cursor
    s.live = picker.board.pools + pool.row
    s.backends = pool_backends(plan, pool)
    state = live_of(&s, <uint32_t> index).state
    # In panic nobody's verdict is believed: then sessions stay, too.
    if state != STATE_UP and state != STATE_DRAIN and not (
            load32(&s.live.flags) & POOL_PANIC
            and (state == STATE_DOWN or state == STATE_EJECTED)):
        return PICK_NONE
    if not reserve(&s, <uint32_t> index, 0):
        return PICK_FULL
    cursor.tried[cursor.tried_count] = <uint16_t> index
    cursor.tried_count += 1
    return index


cdef void release(picker_t *picker, uint32_t backend_row, uint32_t pool_row) noexcept nogil:
    cdef const board_t *board = picker.board
    cdef backend_counters_t *counters
    cdef pool_counters_t *pool_counters
    counters = board.backend_counters + <size_t> picker.seat * MAX_BACKENDS + backend_row
    pool_counters = board.pool_counters + <size_t> picker.seat * MAX_POOLS + pool_row
    sub32(&board.backends[backend_row].inflight, 1)
    sub32(&board.pools[pool_row].inflight, 1)
    store32(&counters.inflight, counters.inflight - 1)
    store32(&pool_counters.inflight, pool_counters.inflight - 1)


# ---- the same door for Python ------------------------------------------------------------------

NOBODY = PICK_NONE
FULL = PICK_FULL


cdef class Cursor:
    """A connection that looks for a backend; made by :meth:`Selector.begin`."""
    cdef cursor_t cursor
    cdef readonly uint32_t pool

    @property
    def tried(self) -> list:
        """Indexes within the pool that this cursor was given, in order."""
        return [self.cursor.tried[n] for n in range(self.cursor.tried_count)]


cdef class Selector:
    """What a worker does to find a backend, one step at a time.

    Answers which backend a key maps to and who is next when that one fails, by the very code and
    memory that traffic goes through. ``image_fd`` is a plan image; ``seat`` a seat of the
    scoreboard that no worker writes to.
    """
    cdef Scoreboard scoreboard
    cdef const plan_header_t *plan
    cdef picker_t picker

    def __cinit__(self, Scoreboard scoreboard, int image_fd, int seat):
        if not 0 <= seat < MAX_SEATS:
            raise IndexError(f"seat {seat} is outside 0..{MAX_SEATS - 1}")
        self.scoreboard = scoreboard
        self.plan = map_image(image_fd)
        if not picker_init(&self.picker, &scoreboard.board, seat):
            raise MemoryError

    def __dealloc__(self):
        picker_free(&self.picker)
        if self.plan != NULL:
            unmap_image(self.plan)

    cdef const pool_t *pool(self, uint32_t index) except NULL:
        if index >= self.plan.pool_count:
            raise IndexError(f"pool {index} is outside 0..{self.plan.pool_count - 1}")
        return plan_pools(self.plan) + index

    def swap(self, int image_fd) -> None:
        """Goes on with another plan, as a worker does at a reload; older cursors are void."""
        cdef const plan_header_t *plan = map_image(image_fd)
        unmap_image(self.plan)
        self.plan = plan

    def begin(self, pool: int, key: bytes = b"") -> Cursor:
        """A connection with this key, which has been given nobody yet."""
        cdef Cursor cursor = Cursor()
        cursor.pool = pool
        cursor_begin(&cursor.cursor, self.pool(cursor.pool), key, len(key))
        return cursor

    def pick(self, Cursor cursor not None) -> int:
        """Index within the pool of the next candidate, its place taken; or NOBODY or FULL."""
        return pick(&self.picker, self.plan, self.pool(cursor.pool), &cursor.cursor)

    def pick_this(self, Cursor cursor not None, index: int) -> bool:
        """Takes a place at the backend that keeps a session, if it is there and has one."""
        cdef const pool_t *of = self.pool(cursor.pool)
        return pick_this(&self.picker, self.plan, of, &cursor.cursor, index) >= 0

    def release(self, pool: int, index: int) -> None:
        """Gives a place back that :meth:`pick` took."""
        cdef const pool_t *of = self.pool(pool)
        if not 0 <= index < of.primary_count + of.backup_count:
            raise IndexError(f"pool {pool} has no backend {index}")
        release(&self.picker, pool_backends(self.plan, of)[<uint32_t> index].row, of.row)

    def order(self, pool: int, key: bytes = b"") -> list:
        """Who a connection with this key is given, and who after him, up to 8; takes no places."""
        cdef Cursor cursor = self.begin(pool, key)
        cdef int found
        while (found := self.pick(cursor)) >= 0:
            self.release(pool, found)
        return cursor.tried

    def route(self, pool: int, keys) -> list:
        """The first candidate of each key, or NOBODY or FULL; takes no places."""
        cdef const pool_t *of = self.pool(pool)
        cdef cursor_t cursor
        cdef int found
        answers = []
        for key in keys:
            cursor_begin(&cursor, of, key, len(key))
            found = pick(&self.picker, self.plan, of, &cursor)
            if found >= 0:
                release(&self.picker, pool_backends(self.plan, of)[found].row, of.row)
            answers.append(found)
        return answers
