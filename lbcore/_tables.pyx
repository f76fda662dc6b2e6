# The tables of consistent hashing, and the hashes that lead into them. Pure: bytes in, bytes out.
#
# The supervisor builds a table once per plan; workers read it through the plan image. Nothing here
# is keyed with a secret: several nodes must agree on where a connection belongs.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from lbcore._plan cimport ring_point_t
from lbcore.includes.siphash cimport le64toh, sip_round

cdef enum:
    POINTS_PER_WEIGHT = 160     # on a ketama ring, as nginx has it
    MAX_POINTS = 1 << 24        # 128 MiB of ring
    EMPTY = 0xFFFF


# ---- hashes ----------------------------------------------------------------------------------

cdef uint64_t sip(const uint8_t *data, size_t length, uint64_t key) noexcept nogil:
    """SipHash-1-3 (Aumasson, Bernstein 2012) with the key (``key``, 0)."""
    cdef uint64_t v[4]
    cdef uint64_t block
    cdef size_t whole = length & ~<size_t> 7
    cdef size_t at = 0
    v[0] = key ^ 0x736F6D6570736575ULL
    v[1] = 0x646F72616E646F6DULL
    v[2] = key ^ 0x6C7967656E657261ULL
    v[3] = 0x7465646279746573ULL
    while at < whole:
        memcpy(&block, data + at, 8)
        block = le64toh(block)
        v[3] ^= block
        sip_round(v)
        v[0] ^= block
        at += 8
    block = 0
    memcpy(&block, data + whole, length - whole)
    block = le64toh(block) | (<uint64_t> length << 56)
    v[3] ^= block
    sip_round(v)
    v[0] ^= block
    v[2] ^= 0xFF
    sip_round(v)
    sip_round(v)
    sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


cdef uint32_t[256] CRC


cdef void crc_prepare() noexcept nogil:
    cdef uint32_t byte, _bit, value
    for byte in range(256):
        value = byte
        for _bit in range(8):
            value = (value >> 1) ^ (0xEDB88320U if value & 1 else 0)
        CRC[byte] = value


cdef uint32_t crc32(const uint8_t *data, size_t length, uint32_t before) noexcept nogil:
    """The CRC of IEEE 802.3, as zlib and nginx compute it; ``before`` is that of what precedes."""
    cdef uint32_t value = ~before
    cdef size_t at
    for at in range(length):
        value = CRC[(value ^ data[at]) & 0xFF] ^ (value >> 8)
    return ~value


crc_prepare()


def siphash(data: bytes, key: int = 0) -> int:
    """The 64-bit hash behind maglev: 0 for what clients send, 1 and 2 for names of backends."""
    return sip(<const uint8_t *> <const char *> data, len(data), key)


# ---- maglev ------------------------------------------------------------------------------------

MAGLEV_SIZE = 65537
MAGLEV_LARGE_SIZE = 655373
# Above so many backends of equal weight the shares of a small table would differ by more than 1 %.
MAGLEV_LARGE_ABOVE = 600

ctypedef struct turn_t:         # a backend that waits for its next entry
    uint64_t time               # of the turn: (n + 1/2) / weight for the n-th, in 1/2^32
    uint64_t count              # of turns it has had
    uint32_t weight
    uint32_t index              # what the table says
    uint32_t rank               # by name: who goes first at the same time
    uint32_t position           # in its permutation
    uint32_t skip


cdef void sift_down(turn_t *heap, size_t count) noexcept nogil:
    cdef size_t at = 0, child
    cdef turn_t moving = heap[0]
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        if child + 1 < count and earlier(&heap[child + 1], &heap[child]):
            child += 1
        if not earlier(&heap[child], &moving):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moving


cdef inline bint earlier(const turn_t *a, const turn_t *b) noexcept nogil:
    return a.time < b.time or (a.time == b.time and a.rank < b.rank)


cdef void maglev_fill(uint16_t *table, uint32_t size, turn_t *heap, size_t count) noexcept nogil:
    """Backends take turns in proportion to their weights; at each turn one takes the first entry
    of its own permutation of the table that is still free."""
    cdef uint32_t _filled, position
    cdef turn_t *turn = heap
    for _filled in range(size):
        position = turn.position
        while table[position] != EMPTY:
            position += turn.skip
            if position >= size:
                position -= size
        table[position] = <uint16_t> turn.index
        turn.position = position
        turn.count += 1
        turn.time = ((2 * turn.count + 1) << 32) // turn.weight
        sift_down(heap, count)


def is_prime(number: int) -> bool:
    """Whether ``number`` is prime; meant for the size of a table, so by trial division."""
    if number < 4:
        return number > 1
    if number % 2 == 0:
        return False
    divisor = 3
    while divisor * divisor <= number:
        if number % divisor == 0:
            return False
        divisor += 2
    return True


def check_weights(count: int, weights: list) -> None:
    if len(weights) != count:
        raise ValueError(f"{count} backends, but {len(weights)} weights")
    for weight in weights:
        if not 0 <= weight <= 65535:
            raise ValueError(f"weight {weight} is outside 0..65535")


def maglev_table(names, weights, size: int = 0) -> bytes:
    """A lookup table after Eisenbud et al., "Maglev" (NSDI 2016), section 3.4, with weights.

    Returns native uint16 entries, each an index into ``names``. The table depends on names and
    weights, not on their order, and on nothing else: several nodes build the same one. ``size``
    is a prime, or 0 for one that keeps shares within about 1 % of the weights. A backend of
    weight 0 has no entry; without any weight the table is empty.

    Raises ValueError for names that occur twice, weights outside 0..65535 and sizes that are not
    prime or smaller than the number of backends.
    """
    names, weights = list(names), list(weights)
    check_weights(len(names), weights)
    if len(set(names)) != len(names):
        raise ValueError("two backends have the same name: they would compete for the same entries")
    chosen = sorted((i for i in range(len(names)) if weights[i]), key=names.__getitem__)
    if not chosen:
        return b""
    if size == 0:
        shares = sum(weights) / min(weights[i] for i in chosen)
        size = MAGLEV_LARGE_SIZE if shares > MAGLEV_LARGE_ABOVE else MAGLEV_SIZE
    if not is_prime(size):
        raise ValueError(f"table size {size} is not prime: a skip could miss entries")
    if len(chosen) > size or len(names) > EMPTY:
        raise ValueError(f"{len(names)} backends do not fit a table of {size} entries")
    if size >= 1 << 31:
        raise ValueError(f"table size {size} exceeds {(1 << 31) - 1}")

    cdef uint32_t entries = size
    cdef size_t count = len(chosen), place
    table = bytearray(b"\xff") * (2 * size)
    cdef uint16_t *out = <uint16_t *> <char *> table
    cdef turn_t *heap = <turn_t *> malloc(count * sizeof(turn_t))
    if heap == NULL:
        raise MemoryError
    # First turns are at 1 / (2 weight), so by weight, heaviest first, the array is a heap.
    chosen_by_time = sorted(range(count), key=lambda rank: (-weights[chosen[rank]], rank))
    try:
        for place in range(count):
            rank = chosen_by_time[place]
            name = bytes(names[chosen[rank]])
            heap[place].index = chosen[rank]
            heap[place].rank = rank
            heap[place].weight = weights[chosen[rank]]
            heap[place].count = 0
            heap[place].time = (<uint64_t> 1 << 32) // heap[place].weight
            heap[place].position = siphash(name, 1) % entries
            heap[place].skip = siphash(name, 2) % (entries - 1) + 1 if entries > 2 else 1
        with nogil:
            maglev_fill(out, entries, heap, count)
    finally:
        free(heap)
    return bytes(table)


# ---- ketama ------------------------------------------------------------------------------------

cdef bint sort_points(ring_point_t *points, size_t count) noexcept nogil:
    """Stable sort by hash: radix sort, a byte at a time. False without memory."""
    cdef ring_point_t *spare = <ring_point_t *> malloc(count * sizeof(ring_point_t))
    cdef ring_point_t *source = points
    cdef ring_point_t *target = spare
    cdef size_t[256] start
    cdef size_t at, sum_, many
    cdef uint32_t shift, byte
    if spare == NULL:
        return False
    for shift in range(0, 32, 8):
        memset(start, 0, sizeof(start))
        for at in range(count):
            start[(source[at].hash >> shift) & 0xFF] += 1
        sum_ = 0
        for byte in range(256):
            many = start[byte]
            start[byte] = sum_
            sum_ += many
        for at in range(count):
            byte = (source[at].hash >> shift) & 0xFF
            target[start[byte]] = source[at]
            start[byte] += 1
        source, target = target, source
    free(spare)     # four passes: the result is back in `points`
    return True


cdef void ketama_points(ring_point_t *points, uint32_t base, uint32_t count,
                        uint32_t backend) noexcept nogil:
    cdef uint32_t at, hash = 0
    cdef uint8_t[4] previous
    for at in range(count):
        previous[0] = hash & 0xFF
        previous[1] = (hash >> 8) & 0xFF
        previous[2] = (hash >> 16) & 0xFF
        previous[3] = hash >> 24
        hash = crc32(previous, 4, base)
        points[at].hash = hash
        points[at].backend = backend


def ketama_seed(label: str) -> bytes:
    """What a server's points are derived from: host, zero byte, port.

    nginx takes both from the text of its ``server`` directive: a port is what follows the last
    colon if that is digits only; "unix:" is not part of the path.
    """
    if label[:5].lower() == "unix:":
        return label[5:].encode("utf-8", "surrogateescape") + b"\0"
    host, colon, port = label.rpartition(":")
    if not colon or port.strip("0123456789"):
        host, port = label, ""
    return host.encode("utf-8", "surrogateescape") + b"\0" + port.encode()


def ketama_ring(labels, weights) -> bytes:
    """The ring that nginx builds for ``hash KEY consistent`` from the same servers and weights.

    ``labels`` are servers as written in the configuration ("10.0.0.1:80", "unix:/run/a.sock").
    Returns native ring_point_t entries (uint32 hash, uint32 index into ``labels``) sorted by
    hash, every hash once: of servers that share one, the first listed has it. 160 points for
    each unit of weight.

    Raises ValueError for weights outside 0..65535, and when the weights add up to more than
    104,857, a ring of 128 MiB.
    """
    labels, weights = list(labels), list(weights)
    check_weights(len(labels), weights)
    total = sum(weights)
    if not total:
        return b""
    if total * POINTS_PER_WEIGHT > MAX_POINTS:
        raise ValueError(f"ketama needs {POINTS_PER_WEIGHT} points for each unit of weight, and "
                         f"the weights add up to {total}, more than "
                         f"{MAX_POINTS // POINTS_PER_WEIGHT}: use smaller weights, or maglev")
    cdef size_t count = total * POINTS_PER_WEIGHT, at, kept = 0, filled = 0
    cdef uint32_t base, many, index
    cdef ring_point_t *points = <ring_point_t *> malloc(count * sizeof(ring_point_t))
    if points == NULL:
        raise MemoryError
    try:
        for index in range(len(labels)):
            seed = ketama_seed(labels[index])
            base = crc32(<const uint8_t *> <const char *> seed, len(seed), 0)
            many = weights[index] * POINTS_PER_WEIGHT
            with nogil:
                ketama_points(points + filled, base, many, index)
            filled += many
        with nogil:
            sorted_ = sort_points(points, count)
            for at in range(1, count):
                if points[at].hash != points[kept].hash:
                    kept += 1
                    points[kept] = points[at]
        if not sorted_:
            raise MemoryError
        return (<const char *> points)[:(kept + 1) * sizeof(ring_point_t)]
    finally:
        free(points)
