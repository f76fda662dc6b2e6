# Basic authentication (RFC 7617) against crypt(5) hashes.
#
# A hash is made to be slow: some need 50 ms, and while one is computed the worker does nothing
# else. Therefore:
# - Verdicts are remembered, good ones for a minute since they were last asked for, bad ones for ten
#   seconds. A verdict is a fact about a password and a hash: a reload that changes a hash or takes
#   a user out changes the answer at once. What is remembered is a keyed hash, not the password.
# - Hashing gets at most a quarter of the worker's time, and a second of it at once. Beyond that the
#   answer is AUTH_LATER: guessing cannot hold the worker, and those who are known stay in.
#
# A name that does not exist costs what one that exists costs: its password is hashed too, with the
# settings of a user who is chosen by the name.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset, strlen
from posix.time cimport clock_gettime, timespec

from lbcore._plan cimport plan_header_t, route_t, text_hash, text_of, user_t
from lbcore.includes.siphash cimport siphash

cdef extern from "<crypt.h>" nogil:
    struct crypt_data:
        pass
    char *crypt_r(const char *phrase, const char *setting, crypt_data *data)

cdef extern from "<string.h>" nogil:
    void explicit_bzero(void *data, size_t size)

cdef extern from "<strings.h>" nogil:
    int strncasecmp(const char *a, const char *b, size_t size)

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *data, size_t size, unsigned flags)

cdef extern from "<time.h>" nogil:
    int CLOCK_THREAD_CPUTIME_ID

cdef enum:
    PASSWORD = 511              # bytes; crypt(3) takes no more
    CREDENTIALS = AUTH_USER + 1 + PASSWORD
    HASH = 384                  # CRYPT_OUTPUT_SIZE, the end of the string included
    WAYS = 4
    SETS = 256                  # so 1,024 verdicts
    GOOD_MS = 60000
    BAD_MS = 10000
    SHARE = 250                 # us of hashing for each ms
    SAVED = 1000000             # us of hashing at once

ctypedef struct verdict_t:
    uint64_t key                # of name, password and hash
    uint64_t until_ms           # 0: never used
    bint good

ctypedef struct memory_t:      # what an auth_t points to
    uint64_t secret[2]
    int64_t credit_us           # hashing that may be done now; negative after an expensive one
    uint64_t credited_ms        # up to when credit was given; 0: never
    uint64_t computed           # hashes
    verdict_t verdicts[256][4]
    crypt_data work


cdef auth_t *auth_make() noexcept nogil:
    """What a worker needs to verify; NULL without memory or randomness."""
    cdef memory_t *auth = <memory_t *> calloc(1, sizeof(memory_t))
    if auth != NULL and getrandom(auth.secret, sizeof(auth.secret), 0) != sizeof(auth.secret):
        free(auth)
        return NULL
    return auth


cdef void auth_free(auth_t *auth) noexcept nogil:
    free(auth)


# ---- what the client says ----------------------------------------------------------------------

cdef inline int sextet(uint8_t byte) noexcept nogil:
    if byte >= c'A' and byte <= c'Z':
        return byte - c'A'
    if byte >= c'a' and byte <= c'z':
        return byte - c'a' + 26
    if byte >= c'0' and byte <= c'9':
        return byte - c'0' + 52
    return 62 if byte == c'+' else 63 if byte == c'/' else -1


cdef int decode(const char *text, uint32_t size, char *out, uint32_t room) noexcept nogil:
    """Base64 (RFC 4648) with its padding, and no other spelling of the same bytes; -1 if it is not
    that or longer than ``room``."""
    cdef uint32_t at, n, bits, count
    cdef int value
    cdef uint32_t length = 0
    if size == 0 or size % 4:
        return -1
    for at in range(0, size, 4):
        count = 4
        if at + 4 == size and text[at + 3] == c'=':
            count = 2 if text[at + 2] == c'=' else 3
        bits = 0
        for n in range(count):
            value = sextet(<uint8_t> text[at + n])
            if value < 0:
                return -1
            bits |= <uint32_t> value << (18 - 6 * n)
        if (count == 2 and bits & 0xFFFF) or (count == 3 and bits & 0xFF):
            return -1
        if length + count - 1 > room:
            return -1
        for n in range(count - 1):
            out[length] = <char> (bits >> (16 - 8 * n) & 0xFF)
            length += 1
    return <int> length


cdef int credentials(const char *value, uint32_t size, char *out, uint32_t *name) noexcept nogil:
    """Name and password of a field's value, in one string that ends with NUL; its length and that
    of the name. -1 when it is no such thing."""
    cdef int length, n
    cdef uint8_t byte
    cdef bint named = False
    if size < 6 or strncasecmp(value, "basic ", 6) != 0:
        return -1
    value += 6
    size -= 6
    while size and value[0] == c' ':
        value += 1
        size -= 1
    length = decode(value, size, out, CREDENTIALS)
    if length < 0:
        return -1
    out[length] = 0
    for n in range(length):
        byte = <uint8_t> out[n]
        if byte < 32 or byte == 127:        # RFC 7617, section 2
            return -1
        if byte == c':' and not named:
            name[0] = <uint32_t> n
            named = True
    if not named or name[0] > AUTH_USER or length - name[0] - 1 > PASSWORD:
        return -1
    return length


# ---- what was verified -------------------------------------------------------------------------

cdef verdict_t *remembered(memory_t *auth, uint64_t key, uint64_t now_ms) noexcept nogil:
    cdef verdict_t *verdicts = auth.verdicts[key % SETS]
    cdef uint32_t way
    for way in range(WAYS):
        if verdicts[way].key == key and verdicts[way].until_ms > now_ms:
            return &verdicts[way]
    return NULL


cdef void remember(memory_t *auth, uint64_t key, bint good, uint64_t now_ms) noexcept nogil:
    """In the place of one that has expired, else of a bad one, else, if it is good, of the good one
    that was asked for longest ago: guessing pushes nobody out."""
    cdef verdict_t *verdicts = auth.verdicts[key % SETS]
    cdef verdict_t *place = NULL
    cdef uint32_t way
    for way in range(WAYS):
        if verdicts[way].until_ms <= now_ms:
            place = &verdicts[way]
            break
        if place == NULL or verdicts[way].good < place.good or (
                verdicts[way].good == place.good and verdicts[way].until_ms < place.until_ms):
            place = &verdicts[way]
    if place.until_ms > now_ms and place.good and not good:
        return
    place.key = key
    place.until_ms = now_ms + (GOOD_MS if good else BAD_MS)
    place.good = good


# ---- hashing -----------------------------------------------------------------------------------

cdef bint may_compute(memory_t *auth, uint64_t now_ms) noexcept nogil:
    cdef uint64_t passed = 0
    if auth.credited_ms == 0:
        auth.credit_us = SAVED
    elif now_ms > auth.credited_ms:
        passed = now_ms - auth.credited_ms
        auth.credit_us += <int64_t> (passed if passed < SAVED else SAVED) * SHARE
        if auth.credit_us > SAVED:
            auth.credit_us = SAVED
    if now_ms > auth.credited_ms:
        auth.credited_ms = now_ms
    return auth.credit_us > 0


cdef int64_t spent_us() noexcept nogil:
    """The worker's own time: to be kept waiting for the processor costs nobody's credit."""
    cdef timespec now
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now)
    return <int64_t> now.tv_sec * 1000000 + now.tv_nsec // 1000


cdef bint same(const char *a, const char *b, size_t size) noexcept nogil:
    """Compares without telling by its time where they differ."""
    cdef uint8_t different = 0
    cdef size_t n
    for n in range(size):
        different |= <uint8_t> a[n] ^ <uint8_t> b[n]
    return different == 0


cdef bint compute(memory_t *auth, const char *password, const char *hash,
                  uint32_t size) noexcept nogil:
    """Whether a password has this hash, at the cost that the hash asks for."""
    cdef char setting[HASH]
    cdef const char *made
    cdef bint good
    cdef int64_t began = spent_us()
    if size >= HASH:
        return False
    memcpy(setting, hash, size)
    setting[size] = 0
    made = crypt_r(password, setting, &auth.work)
    good = made != NULL and made[0] != c'*' and strlen(made) == size and same(made, hash, size)
    explicit_bzero(&auth.work, sizeof(crypt_data))
    auth.computed += 1
    auth.credit_us -= spent_us() - began
    return good


cdef const user_t *user_named(const plan_header_t *plan, const route_t *route, const char *name,
                              uint32_t size, bint *known) noexcept nogil:
    """The user of that name, or some other whose hash costs what a user's does."""
    cdef const user_t *users = <const user_t *> (<const char *> plan + route.users.at)
    cdef uint32_t n
    for n in range(route.users.count):
        if users[n].name.size == size and memcmp(text_of(plan, users[n].name), name, size) == 0:
            known[0] = True
            return &users[n]
    known[0] = False
    return &users[text_hash(name, size) % route.users.count]


cdef int verify(memory_t *auth, const plan_header_t *plan, const route_t *route, const char *said,
                uint32_t length, uint32_t name, uint64_t now_ms) noexcept nogil:
    cdef bint known = False
    cdef bint good
    cdef const user_t *user = user_named(plan, route, said, name, &known)
    cdef uint64_t parts[3]
    cdef uint64_t key
    cdef verdict_t *verdict
    parts[0] = siphash(said, length, auth.secret[0], auth.secret[1])
    parts[1] = siphash(text_of(plan, user.hash), user.hash.size, auth.secret[0], auth.secret[1])
    parts[2] = known
    key = siphash(<const char *> parts, sizeof(parts), auth.secret[0], auth.secret[1])
    verdict = remembered(auth, key, now_ms)
    if verdict != NULL:
        if verdict.good:
            verdict.until_ms = now_ms + GOOD_MS
        return AUTH_YES if verdict.good else AUTH_NO
    if not may_compute(auth, now_ms):
        return AUTH_LATER
    good = compute(auth, said + name + 1, text_of(plan, user.hash), user.hash.size) and known
    remember(auth, key, good, now_ms)
    return AUTH_YES if good else AUTH_NO


cdef int auth_check(auth_t *auth, const plan_header_t *plan, const route_t *route,
                    const char *value, uint32_t size, char *user, uint32_t *user_size,
                    uint64_t now_ms) noexcept nogil:
    cdef char said[CREDENTIALS + 1]
    cdef uint32_t name = 0
    cdef int length, result
    user_size[0] = 0
    if route.users.count == 0:
        return AUTH_NO
    length = credentials(value, size, said, &name)
    result = AUTH_NO
    if length >= 0:
        result = verify(<memory_t *> auth, plan, route, said, <uint32_t> length, name, now_ms)
    if result == AUTH_YES:
        memcpy(user, said, name)
        user_size[0] = name
    explicit_bzero(said, sizeof(said))
    return result


# ---- the same door for Python ------------------------------------------------------------------

RESULTS = {AUTH_NO: "no", AUTH_YES: "yes", AUTH_LATER: "later"}


def crypt(password: bytes, setting: bytes) -> bytes | None:
    """crypt(3): the hash of a password with a setting, or with the setting of another hash.

    None when the library does not know this kind of setting.
    """
    cdef crypt_data *work = <crypt_data *> calloc(1, sizeof(crypt_data))
    if work == NULL:
        raise MemoryError
    cdef const char *made = crypt_r(password, setting, work)
    try:
        return None if made == NULL or made[0] == c'*' else <bytes> made
    finally:
        free(work)


cdef class Auth:
    """What a worker remembers, and a route with users, for tests and tools.

    ``users`` are (name, hash) pairs; the time is the caller's, in ms and greater than 0.
    """
    cdef auth_t *auth
    cdef bytearray image

    def __cinit__(self, users):
        self.auth = auth_make()
        if self.auth == NULL:
            raise MemoryError
        self.set_users(users)

    def __dealloc__(self):
        auth_free(self.auth)

    def set_users(self, users) -> None:
        """Another plan, whose route has these users."""
        cdef route_t route
        cdef user_t user
        memset(&route, 0, sizeof(route_t))
        at = sizeof(route_t) + len(users) * sizeof(user_t)
        route.users.at = sizeof(route_t)
        route.users.count = <uint32_t> len(users)
        rows, texts = b"", b""
        for name, hashed in users:
            user.name.at = <uint32_t> (at + len(texts))
            user.name.size = <uint32_t> len(name)
            user.hash.at = <uint32_t> (at + len(texts) + len(name))
            user.hash.size = <uint32_t> len(hashed)
            rows += (<char *> &user)[:sizeof(user_t)]
            texts += name + hashed
        self.image = bytearray((<char *> &route)[:sizeof(route_t)] + rows + texts)

    def check(self, value: bytes, now_ms: int) -> tuple:
        """``yes``, ``no`` or ``later`` for the value of an Authorization field; and who it is."""
        cdef char *image = self.image
        cdef char user[AUTH_USER]
        cdef uint32_t size = 0
        result = auth_check(self.auth, <const plan_header_t *> image, <const route_t *> image,
                            value, <uint32_t> len(value), user, &size, <uint64_t> now_ms)
        return RESULTS[result], user[:size]

    @property
    def computed(self) -> int:
        """Hashes that were computed."""
        return (<memory_t *> self.auth).computed
