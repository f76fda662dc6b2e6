# The timing wheel behind _timers.pxd.
#
# A tick is a number of four base-64 digits (and higher ones, which only the top level looks at). A
# node waits at the level of the highest digit in which its due tick differs from the current tick,
# in the slot of that digit. Three things follow:
#
#   - what waits at a level is due before anything at the levels above, and a set bit always lies
#     ahead of the current digit: the next thing to do is one count of trailing zeros away, however
#     far the clock has jumped;
#   - moving the current tick forward, up to the next non-empty slot, leaves every node in its
#     place;
#   - reaching a slot of level 0 means that all its nodes are due; reaching one of a higher level
#     means that its nodes must be put again, lower. Within the top level's reach (73 hours) a node
#     is put at most four times in its life.
#
# The top level alone wraps around. It reaches 63 slots ahead, so its current slot stays empty too;
# what is due later waits in the last of them and is put again from there.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef extern from *:
    int ctz64 "__builtin_ctzll"(unsigned long long value) noexcept nogil

cdef enum:
    DIGIT_BITS = 6
    DIGIT_MASK = 63
    TOP_SHIFT = 18              # where the top level's digit starts
    MOST_AHEAD = 63             # top level slots
    FAR = 0x7FFFFFFF            # ticks: what the 32 bits of a node can say

cdef uint64_t NEVER = ~<uint64_t> 0


cdef inline void push(timer_node_t **head, timer_node_t *node) noexcept nogil:
    node.next = head[0]
    node.prev = head
    if node.next != NULL:
        node.next.prev = &node.next
    head[0] = node


cdef inline void take_list(timer_node_t **to, timer_node_t **source) noexcept nogil:
    """Moves a whole list to an empty head."""
    to[0] = source[0]
    source[0] = NULL
    if to[0] != NULL:
        to[0].prev = to


cdef inline void unlink_node(wheel_t *wheel, timer_node_t *node) noexcept nogil:
    node.prev[0] = node.next
    if node.next != NULL:
        node.next.prev = node.prev
    node.next = NULL
    node.prev = NULL
    # A node that moved on with its slot's list still names the slot: then this clears a bit that
    # is clear already.
    if wheel.slots[node.slot] == NULL:
        wheel.bitmap[node.slot >> DIGIT_BITS] &= ~(<uint64_t> 1 << (node.slot & DIGIT_MASK))


cdef inline void put(wheel_t *wheel, timer_node_t *node, uint64_t due) noexcept nogil:
    """Puts an unlinked node that is due after the current tick."""
    cdef uint64_t differing = due ^ wheel.tick
    cdef uint64_t last
    cdef uint32_t level = 0, slot
    if differing >= 1 << TOP_SHIFT:
        level = WHEEL_LEVELS - 1
        last = ((wheel.tick >> TOP_SHIFT) + MOST_AHEAD) << TOP_SHIFT
        if due > last:
            due = last
    elif differing >= 1 << (2 * DIGIT_BITS):
        level = 2
    elif differing >= 1 << DIGIT_BITS:
        level = 1
    slot = <uint32_t> (due >> (level * DIGIT_BITS)) & DIGIT_MASK
    wheel.bitmap[level] |= <uint64_t> 1 << slot
    slot += level * WHEEL_SLOTS
    node.slot = <uint8_t> slot
    push(&wheel.slots[slot], node)


cdef inline uint64_t next_stop(const wheel_t *wheel, uint32_t *level) noexcept nogil:
    """The first tick with a slot to empty, and that slot's level; NEVER if there is none."""
    cdef uint64_t tick = wheel.tick, bits
    cdef uint32_t turn
    if wheel.bitmap[0]:
        level[0] = 0
        return (tick & ~<uint64_t> DIGIT_MASK) | <uint64_t> ctz64(wheel.bitmap[0])
    if wheel.bitmap[1]:
        level[0] = 1
        return ((tick >> 12) << 12) | (<uint64_t> ctz64(wheel.bitmap[1]) << 6)
    if wheel.bitmap[2]:
        level[0] = 2
        return ((tick >> 18) << 18) | (<uint64_t> ctz64(wheel.bitmap[2]) << 12)
    bits = wheel.bitmap[3]
    if bits:
        level[0] = 3
        turn = <uint32_t> (tick >> TOP_SHIFT) & DIGIT_MASK
        bits = (bits >> turn) | (bits << ((WHEEL_SLOTS - turn) & DIGIT_MASK))
        return ((tick >> TOP_SHIFT) + <uint64_t> ctz64(bits)) << TOP_SHIFT
    level[0] = 0
    return NEVER


cdef inline uint32_t current_slot(const wheel_t *wheel, uint32_t level) noexcept nogil:
    return level * WHEEL_SLOTS + (<uint32_t> (wheel.tick >> (level * DIGIT_BITS)) & DIGIT_MASK)


cdef uint32_t cascade(wheel_t *wheel, uint32_t budget) noexcept nogil:
    """Puts the nodes of the current slot of level ``wheel.cascading`` again; returns what is left
    of ``budget``. At 0 there may be more to put: ``wheel.cascading`` says so."""
    cdef uint32_t slot = current_slot(wheel, wheel.cascading)
    cdef timer_node_t *node
    cdef int32_t ahead
    while budget:
        node = wheel.slots[slot]
        if node == NULL:
            wheel.cascading = 0
            return budget
        budget -= 1
        unlink_node(wheel, node)
        ahead = <int32_t> (node.due - <uint32_t> wheel.tick)
        if ahead > 0:
            put(wheel, node, wheel.tick + <uint64_t> ahead)
        else:
            push(&wheel.expired, node)
    if wheel.slots[slot] == NULL:
        wheel.cascading = 0
    return 0


cdef void wheel_init(wheel_t *wheel, uint64_t now_ms) noexcept nogil:
    memset(wheel, 0, sizeof(wheel_t))
    wheel.tick = now_ms // TICK_MS
    wheel.now = wheel.tick


cdef void timer_set(wheel_t *wheel, timer_node_t *node, uint64_t due_ms) noexcept nogil:
    cdef uint64_t due = due_ms // TICK_MS + (due_ms % TICK_MS != 0)
    cdef bint late = due <= wheel.now
    if late:
        due = wheel.tick
    elif due - wheel.tick > FAR:
        due = wheel.tick + FAR
    if node.armed:
        if node.due == <uint32_t> due and not late:
            return
        unlink_node(wheel, node)
    node.armed = 1
    node.due = <uint32_t> due
    if late:
        push(&wheel.late, node)
    else:
        put(wheel, node, due)


cdef void timer_clear(wheel_t *wheel, timer_node_t *node) noexcept nogil:
    if node.armed:
        node.armed = 0
        unlink_node(wheel, node)


cdef timer_node_t *wheel_advance(wheel_t *wheel, uint64_t now_ms) noexcept nogil:
    cdef uint64_t now = now_ms // TICK_MS
    cdef uint64_t stop
    cdef uint32_t budget = WHEEL_CASCADE_MAX
    cdef uint32_t level = 0
    cdef timer_node_t *node
    if now > wheel.now:
        wheel.now = now
    if not wheel.walking:
        wheel.walking = 1
        take_list(&wheel.expired, &wheel.late)
    while True:
        node = wheel.expired
        if node != NULL:
            timer_clear(wheel, node)
            return node
        if wheel.cascading:
            if not budget:
                break
            budget = cascade(wheel, budget)
            continue
        stop = next_stop(wheel, &level)
        if stop > wheel.now:
            wheel.tick = wheel.now
            break
        wheel.tick = stop
        if level:
            wheel.cascading = <uint8_t> level
        else:
            level = current_slot(wheel, 0)
            take_list(&wheel.expired, &wheel.slots[level])
            wheel.bitmap[0] &= ~(<uint64_t> 1 << level)
    wheel.walking = 0
    return NULL


cdef int wheel_timeout(const wheel_t *wheel, uint64_t now_ms, int most_ms) noexcept nogil:
    cdef uint32_t level
    cdef uint64_t stop, wait
    if wheel.expired != NULL or wheel.late != NULL or wheel.cascading:
        return 0
    stop = next_stop(wheel, &level)
    if stop == NEVER:
        return most_ms
    stop *= TICK_MS
    wait = stop - now_ms if stop > now_ms else 0
    if most_ms >= 0 and wait > <uint64_t> most_ms:
        return most_ms
    return <int> wait


# ---- for tests -------------------------------------------------------------------------------

TICK = TICK_MS
CASCADE_MAX = WHEEL_CASCADE_MAX
NODE_SIZE = sizeof(timer_node_t)


cdef class Wheel:
    """A wheel with ``size`` nodes, named by index: how tests reach the functions above.

    Raises IndexError for a node that does not exist, MemoryError when there is no room.
    """
    cdef wheel_t wheel
    cdef timer_node_t *nodes
    cdef readonly uint32_t size

    def __cinit__(self, now_ms: int, size: int) -> None:
        self.size = size
        self.nodes = <timer_node_t *> calloc(max(size, 1), sizeof(timer_node_t))
        if self.nodes == NULL:
            raise MemoryError
        wheel_init(&self.wheel, now_ms)

    def __dealloc__(self):
        free(self.nodes)

    cdef timer_node_t *node(self, index: int) except NULL:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return &self.nodes[<uint32_t> index]

    def set(self, index: int, due_ms: int) -> None:
        timer_set(&self.wheel, self.node(index), due_ms)

    def clear(self, index: int) -> None:
        timer_clear(&self.wheel, self.node(index))

    def armed(self, index: int) -> bool:
        return self.node(index).armed != 0

    def overwrite(self, index: int) -> None:
        """Fills an unarmed node's memory with garbage and zeroes it: it was freed and is new."""
        cdef timer_node_t *node = self.node(index)
        if node.armed:
            raise ValueError(f"node {index} is armed")
        memset(node, 0xA5, sizeof(timer_node_t))
        memset(node, 0, sizeof(timer_node_t))

    def advance(self, now_ms: int) -> int | None:
        """The index of one expired node, or None."""
        cdef timer_node_t *node = wheel_advance(&self.wheel, now_ms)
        return None if node == NULL else <object> (node - self.nodes)

    def timeout(self, now_ms: int, most_ms: int) -> int:
        return wheel_timeout(&self.wheel, now_ms, most_ms)

    def linked(self) -> frozenset:
        """The indexes of all nodes found on any list, each list checked on the way.

        Raises AssertionError where a link, a bitmap bit or an armed flag contradicts another.
        """
        found = set()
        cdef uint32_t slot
        cdef bint bit
        for slot in range(WHEEL_LEVELS * WHEEL_SLOTS):
            bit = (self.wheel.bitmap[slot >> DIGIT_BITS] >> (slot & DIGIT_MASK)) & 1
            if bit != (self.wheel.slots[slot] != NULL):
                raise AssertionError(f"bitmap of slot {slot} does not match its list")
            self.walk(&self.wheel.slots[slot], found)
        self.walk(&self.wheel.expired, found)
        self.walk(&self.wheel.late, found)
        return frozenset(found)

    cdef walk(self, timer_node_t **head, set found):
        cdef timer_node_t **link = head
        while link[0] != NULL:
            index = link[0] - self.nodes
            if link[0].prev != link or not link[0].armed or index in found:
                raise AssertionError(f"node {index} is linked wrongly")
            found.add(index)
            link = &link[0].next
