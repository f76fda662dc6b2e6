# Request rates over all workers: the generic cell rate algorithm (ITU-T I.371) on shared memory.
#
# A bucket is one time: when its burst will be whole again. A request moves it on by one interval
# and may pass unless that is further away than the burst reaches. So what is admitted in any time T
# is at most burst + T / interval, over all workers together and exactly: the time moves by compare
# and swap.
#
# Where a key's bucket is: in one of the eight places of the group that the key leads to. A bucket
# that is whole says nothing any more, and its place is given to whoever needs one. How a place
# changes hands without a request being counted for the wrong key:
# - Who gives a place to a key holds the group's lock, so no key ever gets two. Charging a bucket
#   that is there takes no lock, and is all that happens as a rule.
# - The time says MOVING while the key changes. Whoever charges reads the time, then the key, and
#   swaps that same time: it fails if the place has changed hands in between.
#
# When all eight buckets of a group are in use, the one that is whole soonest is forgotten before
# its time, and counted: a flood of made-up keys lets requests pass that were to wait, but it stops
# nobody, and those who asked for most stay limited.

from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from lbcore._scoreboard cimport RATE_SLOTS, Scoreboard, board_t, rate_bucket_t
from lbcore._tables cimport mix
from lbcore.includes.atomics cimport acquire64, add64, cas64, load64, release64, store64
from lbcore.includes.siphash cimport siphash

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    PLACES = 8                  # in a group: two cache lines
    LOCKS = 256                 # of board_header_t
    SPINS = 100                 # turns for the lock before the processor is given away
    HOLDER_DEAD = 50000         # us: what a lock is held for, some 100 ns, many times over
    RACES = 64

cdef uint64_t MOVING = <uint64_t> 1 << 63
cdef uint64_t LONGEST = <uint64_t> 1 << 61      # us that a burst may reach: no sum overflows
cdef uint64_t ELSEWHERE = ~<uint64_t> 0


cdef uint64_t rate_key(const board_t *board, uint32_t route_row, const char *data,
                       uint32_t size) noexcept nogil:
    cdef uint64_t said[2]
    cdef uint64_t key
    said[0] = siphash(data, size, board.header.secret[0], board.header.secret[1])
    said[1] = route_row
    key = siphash(<const char *> said, sizeof(said), board.header.secret[0],
                  board.header.secret[1])
    return key if key else 1


cdef uint64_t charge(rate_bucket_t *bucket, uint64_t key, uint64_t interval, uint64_t reach,
                     uint64_t now) noexcept nogil:
    """0 when the request may pass, else microseconds to wait; ELSEWHERE: not this key's bucket."""
    cdef uint64_t due, ahead
    while True:
        due = acquire64(&bucket.due_us)
        if due & MOVING or load64(&bucket.key) != key:
            return ELSEWHERE
        ahead = (due - now if due > now else 0) + interval
        if ahead > reach:
            return ahead - reach
        if cas64(&bucket.due_us, due, now + ahead):
            return 0


cdef uint64_t clock_us() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * 1000000 + now.tv_nsec // 1000


cdef uint64_t lock(uint64_t *word) noexcept nogil:
    """Waits for the lock; returns what unlock needs. A worker that died with it keeps it for
    HOLDER_DEAD."""
    cdef uint64_t held, now
    cdef uint32_t turn = 0
    while True:
        now = clock_us() | 1
        held = load64(word)
        if held == 0 or now - held > HOLDER_DEAD and now > held:
            if cas64(word, held, now):
                return now
        turn += 1
        if turn >= SPINS:
            sched_yield()


cdef void unlock(uint64_t *word, uint64_t mine) noexcept nogil:
    cas64(word, mine, 0)


cdef uint64_t charge_new(const board_t *board, rate_bucket_t *group, uint64_t key,
                         uint64_t interval, uint64_t now) noexcept nogil:
    """Gives a place of the group to a key that has none. The caller has the lock."""
    cdef rate_bucket_t *chosen
    cdef uint64_t due, least
    cdef uint32_t n, _race
    for _race in range(RACES):
        chosen = NULL
        least = 0
        for n in range(PLACES):
            due = acquire64(&group[n].due_us)
            if due & MOVING:        # and we have the lock: its worker died just there
                chosen = &group[n]
                least = due
                break
            if chosen == NULL or due < least:
                chosen = &group[n]
                least = due
        if not cas64(&chosen.due_us, least, MOVING | now):
            continue                # it was charged meanwhile
        store64(&chosen.key, key)
        release64(&chosen.due_us, now + interval)
        if least > now and not least & MOVING:
            add64(&board.header.rates_forgotten, 1)
        return 0
    add64(&board.header.rates_forgotten, 1)
    return 0


cdef inline uint64_t place_key(uint64_t key, uint32_t interval_us, uint32_t burst) noexcept nogil:
    """Another limit is another bucket: what was counted for the old one means nothing for it."""
    cdef uint64_t own = mix(key ^ (<uint64_t> interval_us << 32 | burst))
    return own if own else 1


cdef uint32_t rate_take(const board_t *board, uint64_t key, uint32_t interval_us, uint32_t burst,
                        uint64_t now_us) noexcept nogil:
    cdef uint64_t own = place_key(key, interval_us, burst)
    cdef uint64_t reach = <uint64_t> interval_us * burst
    cdef uint32_t number = <uint32_t> own & (RATE_SLOTS // PLACES - 1)
    cdef rate_bucket_t *group = board.rates + number * PLACES
    cdef uint64_t *word = &board.header.rate_locks[number & (LOCKS - 1)]
    cdef uint64_t wait = ELSEWHERE, mine
    cdef uint32_t n
    if interval_us == 0 or burst == 0:
        return 0
    if reach > LONGEST:
        reach = LONGEST
    for n in range(PLACES):
        wait = charge(&group[n], own, interval_us, reach, now_us)
        if wait != ELSEWHERE:
            break
    if wait == ELSEWHERE:
        mine = lock(word)
        for n in range(PLACES):     # somebody may have been faster
            wait = charge(&group[n], own, interval_us, reach, now_us)
            if wait != ELSEWHERE:
                break
        if wait == ELSEWHERE:
            wait = charge_new(board, group, own, interval_us, now_us)
        unlock(word, mine)
    wait = (wait + 999) // 1000
    return <uint32_t> wait if wait < UINT32_MAX else UINT32_MAX


# ---- the same door for Python ------------------------------------------------------------------

def key(Scoreboard board not None, route: int, data: bytes) -> int:
    """The key of what is limited within a route; no two instances of lbcore agree on it."""
    return rate_key(&board.board, <uint32_t> route, data, <uint32_t> len(data))


def take(Scoreboard board not None, key: int, interval_us: int, burst: int, now_us: int) -> int:
    """0: it may pass, and is counted. Otherwise milliseconds until one may."""
    return rate_take(&board.board, <uint64_t> key, <uint32_t> interval_us, <uint32_t> burst,
                     <uint64_t> now_us)


def group(key: int, interval_us: int, burst: int) -> int:
    """Which group of eight places a key leads to."""
    return place_key(<uint64_t> key, <uint32_t> interval_us, <uint32_t> burst) & (
        RATE_SLOTS // PLACES - 1)


def forgotten(Scoreboard board not None) -> int:
    """Buckets that made room for others before their time, since the scoreboard was made."""
    return load64(&board.board.header.rates_forgotten)
