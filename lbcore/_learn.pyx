# The backends that applications' own cookies lead to: a table in shared memory, without locks.
#
# A place holds the hash of a backend's name, and its key exclusive-or that hash (Hyatt and Mann,
# "A lockless transposition-table implementation", 2002). Whoever reads one word of before and one
# of after a change gets a key that is nobody's, and finds nothing: no request is ever sent where
# its value was not set.
#
# A value may be in any of the eight places of the group that its key leads to. Who writes one swaps
# its time for MOVING first, so writers do not mix their words either. Two workers that learn a
# value in the same moment may give it two places; they say the same, and the next change leaves
# one.
#
# Only backends put values in. When all places of a group are in use, the value that would be
# forgotten first is forgotten now, and counted.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp

from lbcore._bytes cimport blank, equals_lower
from lbcore._http1 cimport FIELD_SET_COOKIE, field_t
from lbcore._scoreboard cimport LEARN_SLOTS, Scoreboard, learnt_t
from lbcore.includes.atomics cimport add64, cas64, load64, release64, store64
from lbcore.includes.siphash cimport siphash

cdef enum:
    PLACES = 8                  # in a group: three cache lines
    HOLDER_DEAD = 1000          # ms: writing takes some 10 ns
    RACES = 16

cdef uint64_t MOVING = <uint64_t> 1 << 63

ctypedef struct set_cookie_t:   # what one Set-Cookie says
    const char *value
    uint32_t size
    bint ends


cdef uint64_t learn_key(const board_t *board, uint32_t pool_row, const char *value,
                        uint32_t size) noexcept nogil:
    cdef uint64_t said[2]
    cdef uint64_t key
    said[0] = siphash(value, size, board.header.secret[0], board.header.secret[1])
    said[1] = pool_row
    key = siphash(<const char *> said, sizeof(said), board.header.secret[1],
                  board.header.secret[0])
    return key if key else 1


# ---- the table ---------------------------------------------------------------------------------

cdef inline learnt_t *group_of(const board_t *board, uint64_t key) noexcept nogil:
    return board.learnt + (key & (LEARN_SLOTS // PLACES - 1)) * PLACES


cdef inline bint holds(const learnt_t *place, uint64_t key) noexcept nogil:
    return load64(&place.check) ^ load64(&place.name_hash) == key


cdef inline void renew(learnt_t *place, uint64_t due, uint64_t fresh,
                       uint64_t expiry) noexcept nogil:
    """Not each time: what many workers write is slow to read for all of them."""
    if due + expiry // 16 < fresh or due > fresh:
        cas64(&place.due_ms, due, fresh)


cdef bint write_place(learnt_t *place, uint64_t due, uint64_t key, uint64_t name_hash,
                      uint64_t fresh, uint64_t now) noexcept nogil:
    """Fills a place whose time is `due`. False: it is not any more."""
    if not cas64(&place.due_ms, due, MOVING | now):
        return False
    store64(&place.name_hash, name_hash)
    store64(&place.check, key ^ name_hash)
    release64(&place.due_ms, fresh)
    return True


cdef uint64_t learn_find(const board_t *board, uint64_t key, uint64_t expiry,
                         uint64_t now) noexcept nogil:
    cdef learnt_t *group = group_of(board, key)
    cdef uint64_t name_hash, due
    cdef uint32_t n
    for n in range(PLACES):
        due = load64(&group[n].due_ms)
        name_hash = load64(&group[n].name_hash)
        if load64(&group[n].check) ^ name_hash != key or due <= now:
            continue
        if not due & MOVING:
            renew(&group[n], due, now + expiry, expiry)
        return name_hash
    return 0


cdef void learn_store(const board_t *board, uint64_t key, uint64_t name_hash, uint64_t expiry,
                      uint64_t now) noexcept nogil:
    cdef learnt_t *group = group_of(board, key)
    cdef learnt_t *chosen
    cdef uint64_t due, chosen_due, rank, least
    cdef uint32_t n, _race
    cdef bint known
    for _race in range(RACES):
        chosen = NULL
        chosen_due = least = 0
        known = False
        for n in range(PLACES):
            due = load64(&group[n].due_ms)
            if due & MOVING and (due ^ MOVING) + HOLDER_DEAD >= now:
                continue
            if not due & MOVING and due and holds(&group[n], key):
                if known:
                    write_place(&group[n], due, 0, 0, 0, now)
                    continue
                known = True
                chosen = &group[n]
                chosen_due = due
            elif not known:
                rank = 0 if due <= now or due & MOVING else due
                if chosen == NULL or rank < least:
                    chosen = &group[n]
                    chosen_due = due
                    least = rank
        if chosen == NULL:
            continue
        if known and load64(&chosen.name_hash) == name_hash:
            renew(chosen, chosen_due, now + expiry, expiry)
            return
        if write_place(chosen, chosen_due, key, name_hash, now + expiry, now):
            if not known and least:
                add64(&board.header.learnt_forgotten, 1)
            return


cdef void learn_forget(const board_t *board, uint64_t key, uint64_t now) noexcept nogil:
    cdef learnt_t *group = group_of(board, key)
    cdef uint64_t due
    cdef uint32_t n
    for n in range(PLACES):
        due = load64(&group[n].due_ms)
        if due and not due & MOVING and holds(&group[n], key):
            write_place(&group[n], due, 0, 0, 0, now)


# ---- Set-Cookie (RFC 6265, 5.2) ----------------------------------------------------------------

cdef inline void trim(const char **start, const char **end) noexcept nogil:
    while start[0] < end[0] and blank(<uint8_t> start[0][0]):
        start[0] += 1
    while end[0] > start[0] and blank(<uint8_t> (end[0] - 1)[0]):
        end[0] -= 1


cdef const char *next_part(const char **at, const char *stop, const char **end) noexcept nogil:
    """A part between semicolons; `at` moves behind it, and beyond `stop` at the last."""
    cdef const char *start = at[0]
    cdef const char *semicolon = <const char *> memchr(start, c';', <size_t> (stop - start))
    end[0] = semicolon if semicolon != NULL else stop
    at[0] = end[0] + 1
    trim(&start, end)
    return start


cdef bint is_over(const char *age, const char *end) noexcept nogil:
    """Whether a Max-Age is 0 or less."""
    if age == end:
        return False
    if age[0] == c'-':
        return True
    while age < end and age[0] == c'0':
        age += 1
    return age == end


cdef bint read_set_cookie(const char *field, uint32_t size, const char *name, uint32_t name_size,
                          set_cookie_t *out) noexcept nogil:
    """False: it is about another cookie."""
    cdef const char *at = field
    cdef const char *stop = field + size
    cdef const char *end
    cdef const char *start = next_part(&at, stop, &end)
    cdef const char *equals = <const char *> memchr(start, c'=', <size_t> (end - start))
    cdef const char *name_end = equals
    if equals == NULL:
        return False
    trim(&start, &name_end)
    if name_end - start != <ssize_t> name_size or memcmp(start, name, name_size):
        return False
    start = equals + 1
    trim(&start, &end)
    out.value = start
    out.size = <uint32_t> (end - start)
    out.ends = out.size == 0 or (out.size == 2 and start[0] == c'"' and start[1] == c'"')
    while at <= stop:
        start = next_part(&at, stop, &end)
        if end - start > 8 and equals_lower(start, 8, b"max-age=", 8):
            start += 8
            trim(&start, &end)
            if is_over(start, end):
                out.ends = True
    return True


cdef int learn_look(const head_t *reply, const char *base, const char *name,
                    uint32_t name_size) noexcept nogil:
    cdef const field_t *field
    cdef set_cookie_t cookie
    cdef int result = 0
    cdef uint32_t i
    if reply.first[<int> FIELD_SET_COOKIE] == 0:
        return 0
    for i in range(<uint32_t> reply.first[<int> FIELD_SET_COOKIE] - 1, reply.count):
        field = &reply.fields[i]
        if field.id == FIELD_SET_COOKIE and read_set_cookie(
                base + field.value, field.value_size, name, name_size, &cookie):
            result |= LEARN_ENDS if cookie.ends else LEARN_SETS
    return result


cdef void learn_reply(const board_t *board, uint32_t pool_row, const head_t *reply,
                      const char *base, const char *name, uint32_t name_size, uint64_t name_hash,
                      uint64_t expiry, uint64_t now) noexcept nogil:
    cdef const field_t *field
    cdef set_cookie_t cookie
    cdef uint64_t key
    cdef uint32_t i
    for i in range(reply.count):
        field = &reply.fields[i]
        if field.id != FIELD_SET_COOKIE or not read_set_cookie(
                base + field.value, field.value_size, name, name_size, &cookie):
            continue
        key = learn_key(board, pool_row, cookie.value, cookie.size)
        if cookie.ends:
            learn_forget(board, key, now)
        else:
            learn_store(board, key, name_hash, expiry, now)


# ---- the same door for Python ------------------------------------------------------------------

def key(Scoreboard board not None, pool: int, value: bytes) -> int:
    """The key of a cookie's value within a pool's row; no two instances of lbcore agree on it."""
    return learn_key(&board.board, <uint32_t> pool, value, <uint32_t> len(value))


def find(Scoreboard board not None, key: int, expiry_ms: int, now_ms: int) -> int:
    """The name's hash of the backend that a key belongs to, and it is known for longer; 0: none."""
    return learn_find(&board.board, <uint64_t> key, <uint64_t> expiry_ms, <uint64_t> now_ms)


def store(Scoreboard board not None, key: int, name_hash: int, expiry_ms: int,
          now_ms: int) -> None:
    """From now on a key belongs to the backend with this hash of its name."""
    learn_store(&board.board, <uint64_t> key, <uint64_t> name_hash, <uint64_t> expiry_ms,
                <uint64_t> now_ms)


def forget(Scoreboard board not None, key: int, now_ms: int) -> None:
    """A key belongs to nobody any more."""
    learn_forget(&board.board, <uint64_t> key, <uint64_t> now_ms)


def said(field: bytes, name: bytes) -> tuple | None:
    """What a Set-Cookie field says of a cookie: its value, and whether it ends; None: nothing."""
    cdef set_cookie_t cookie
    if not read_set_cookie(field, <uint32_t> len(field), name, <uint32_t> len(name), &cookie):
        return None
    return cookie.value[:cookie.size], bool(cookie.ends)


def group(key: int) -> int:
    """Which group of eight places a key leads to."""
    return <uint64_t> key & (LEARN_SLOTS // PLACES - 1)


def forgotten(Scoreboard board not None) -> int:
    """Values that made room for others before their time, since the scoreboard was made."""
    return load64(&board.board.header.learnt_forgotten)
