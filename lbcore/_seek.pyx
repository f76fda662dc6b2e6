# Looking for a backend: see _seek.pxd.
#
# Rules:
# - A place is reserved before a connect begins and given back exactly once: `backend_row` is NO_ROW
#   whenever none is held.
# - First come, first served: who waits longest gets the place that comes free, and nobody who comes
#   later overtakes.
# - A seeker that waited keeps its cursor and its attempts: who failed it before is not asked again,
#   or a dead backend beside a full one would be asked without end.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from lbcore._balance cimport PICK_FULL, pick, release
from lbcore._expressions cimport expressions_free, expressions_t
from lbcore._loop cimport (
    SEEK_NOBODY, SEEK_WAITS, backend_counters, clock_us, descriptors_taken, pool_counters, queue_t,
)
from lbcore._plan cimport plan_pools, pool_backends, unmap_image
from lbcore._scoreboard cimport NO_ROW, backend_counters_t, backend_live_t
from lbcore.includes.atomics cimport add32, load32, store32, sub32
from lbcore.includes.linux cimport SOL_SOCKET, SO_LINGER, close, linger, setsockopt, write

cdef enum:
    QUEUE_POLL = 10             # ms: places freed by other workers are noticed so late


cdef inline const pool_t *pool_of(const seeker_t *seeker) noexcept nogil:
    return plan_pools(seeker.plan.image) + seeker.pool


cdef void plan_release(plan_ref_t *plan) noexcept nogil:
    plan.references -= 1
    if plan.references == 0:
        if plan.expressions != NULL:
            expressions_free(<expressions_t *> plan.expressions)
        unmap_image(plan.image)
        free(plan)


cdef void share_descriptors(loop_t *loop) noexcept nogil:
    cdef uint32_t taken = descriptors_taken(loop)
    cdef uint32_t spare = (
        (loop.descriptor_limit - taken) // 2 if taken < loop.descriptor_limit else 0)
    cdef uint32_t wanted = loop.plan.image.max_pipes if loop.plan != NULL else 0
    loop.relay.max_pipes = wanted if wanted < spare else spare


cdef void close_socket(end_t *end, bint abort) noexcept nogil:
    cdef linger at_once
    if end.fd < 0:
        return
    if abort:
        at_once.l_onoff = 1
        at_once.l_linger = 0
        setsockopt(end.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))
    close(end.fd)
    end.fd = -1


# ---- candidates --------------------------------------------------------------------------------

cdef int seek(loop_t *loop, seeker_t *seeker) noexcept nogil:
    return seek_judge(
        loop, seeker, pick(&loop.picker, seeker.plan.image, pool_of(seeker), &seeker.cursor))


cdef int seek_judge(loop_t *loop, seeker_t *seeker, int index) noexcept nogil:
    cdef const pool_t *pool = pool_of(seeker)
    if index < 0 and (index == PICK_FULL or seeker.cursor.tried_count == 0):
        return enqueue(loop, seeker, index != PICK_FULL)
    if seeker.attempts and (
            seeker.attempts >= pool.connect_attempts or loop.now >= seeker.deadline):
        if index >= 0:
            release(&loop.picker, pool_backends(seeker.plan.image, pool)[index].row,
                    seeker.pool_row)
        return SEEK_SPENT
    if index < 0:
        return SEEK_PAUSE
    seeker.backend = <unsigned short> index
    seeker.backend_row = pool_backends(seeker.plan.image, pool)[index].row
    seeker.attempts += 1
    return SEEK_READY


cdef void seek_release(loop_t *loop, seeker_t *seeker) noexcept nogil:
    if seeker.backend_row == NO_ROW:
        return
    release(&loop.picker, seeker.backend_row, seeker.pool_row)
    seeker.backend_row = NO_ROW
    if loop.queues[seeker.pool_row].length:
        loop.queue_at = loop.now


cdef void seek_failed(loop_t *loop, seeker_t *seeker, uint32_t started_us,
                      bint timed_out) noexcept nogil:
    cdef backend_counters_t *counters = backend_counters(loop, seeker.backend_row)
    cdef const pool_t *pool = pool_of(seeker)
    if timed_out:
        counters.timeouts += 1
    else:
        counters.refused += 1
    if seeker.attempts < pool.connect_attempts:
        counters.redispatched += 1
    # A try that the budget cut short says little about the backend.
    if not timed_out or (
            <uint32_t> clock_us() - started_us >= (pool.connect_timeout - 1) * 1000):
        suspect(loop, seeker.backend_row)
    seek_release(loop, seeker)


cdef void suspect(loop_t *loop, uint32_t row) noexcept nogil:
    cdef backend_live_t *live = &loop.board.backends[row]
    cdef uint64_t one = 1
    if add32(&live.failures, 1) + 1 == live.eject_after:
        write(loop.bell, &one, sizeof(one))


cdef void trust(loop_t *loop, uint32_t row) noexcept nogil:
    if load32(&loop.board.backends[row].failures):
        store32(&loop.board.backends[row].failures, 0)


# ---- waiting -----------------------------------------------------------------------------------

cdef int enqueue(loop_t *loop, seeker_t *seeker, bint nobody) noexcept nogil:
    cdef const pool_t *pool = pool_of(seeker)
    cdef queue_t *queue = &loop.queues[seeker.pool_row]
    if pool.queue_timeout == 0 or pool.max_queue == 0:
        return SEEK_NO_BACKEND if nobody else SEEK_FULL
    if add32(&loop.board.pools[seeker.pool_row].waiting, 1) >= pool.max_queue:
        sub32(&loop.board.pools[seeker.pool_row].waiting, 1)
        return SEEK_NO_BACKEND if nobody else SEEK_FULL
    pool_counters(loop, seeker.pool_row).waiting += 1
    pool_counters(loop, seeker.pool_row).queued += 1
    seeker.flags |= SEEK_WAITS
    if nobody:
        seeker.flags |= SEEK_NOBODY
    seeker.deadline = loop.now + pool.queue_timeout
    seeker.next = NULL
    seeker.previous = queue.tail
    if queue.tail == NULL:
        queue.head = seeker
    else:
        queue.tail.next = seeker
    queue.tail = seeker
    queue.length += 1
    if not queue.active:
        queue.active = 1
        queue.next = loop.waiting
        loop.waiting = queue
    if loop.queue_at == 0:
        loop.queue_at = loop.now + QUEUE_POLL
    return SEEK_QUEUED


cdef void seek_cancel(loop_t *loop, seeker_t *seeker) noexcept nogil:
    cdef queue_t *queue = &loop.queues[seeker.pool_row]
    if not seeker.flags & SEEK_WAITS:
        return
    if seeker.previous == NULL:
        queue.head = seeker.next
    else:
        seeker.previous.next = seeker.next
    if seeker.next == NULL:
        queue.tail = seeker.previous
    else:
        seeker.next.previous = seeker.previous
    queue.length -= 1
    seeker.flags &= ~<uint32_t> SEEK_WAITS
    pool_counters(loop, seeker.pool_row).waiting -= 1
    sub32(&loop.board.pools[seeker.pool_row].waiting, 1)


cdef bint queue_try(loop_t *loop, seeker_t *seeker) noexcept nogil:
    """Sends a seeker that waits on its way; False when nobody can take it yet."""
    cdef int index = pick(&loop.picker, seeker.plan.image, pool_of(seeker), &seeker.cursor)
    if index == PICK_FULL or (index < 0 and seeker.cursor.tried_count == 0):
        return False
    seek_cancel(loop, seeker)
    seeker.flags &= ~<uint32_t> SEEK_NOBODY
    seeker.deadline = loop.now + pool_of(seeker).connect_budget
    loop.found[seeker.kind](loop, seeker.owner, seek_judge(loop, seeker, index))
    return True


cdef void queue_poll(loop_t *loop, uint32_t pool_row) noexcept nogil:
    """First come, first served, among seekers of the same plan."""
    cdef seeker_t *seeker = loop.queues[pool_row].head
    cdef seeker_t *following
    cdef plan_ref_t *stuck = NULL
    while seeker != NULL and stuck != loop.plan:
        following = seeker.next
        if seeker.plan != stuck and not queue_try(loop, seeker):
            stuck = seeker.plan     # backends of an old plan may be gone: look at who came later
        seeker = following


cdef void queues_poll(loop_t *loop) noexcept nogil:
    cdef queue_t **link = &loop.waiting
    cdef queue_t *queue
    while link[0] != NULL:
        queue = link[0]
        queue_poll(loop, <uint32_t> (queue - loop.queues))
        if queue.head == NULL:
            link[0] = queue.next
            queue.active = 0
        else:
            link = &queue.next
    loop.queue_at = loop.now + QUEUE_POLL if loop.waiting != NULL else 0
