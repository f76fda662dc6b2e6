# The event loop of a worker: one epoll, one thread, no Python object touched while traffic flows.
#
# A turn is: wait, events, timers, deferred work, queues, paused listeners, burial of what ended.
# Every step is bounded, so that no listener and no connection starves another, and a turn that
# finds nothing to do sleeps.
#
# Connections are edge-triggered (see _session.pyx); listening sockets are level-triggered, so that
# a bounded number of accepts a turn needs no bookkeeping: what is left is reported again.

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from lbcore._access cimport access_close, access_flush, access_open
from lbcore._balance cimport picker_free, picker_init
from lbcore._conn cimport conn_event, conn_open, conn_origin_event, conn_timeout
from lbcore._expressions cimport expressions_make
from lbcore._httpside cimport (
    web_drain, web_end_all, web_free, web_make, web_plan_changed, web_work,
)
from lbcore._loop cimport (
    NOTICE_DESCRIPTORS, NOTICE_RESUMED, NOTICE_SPOOL, NOTICE_TROUBLE, SEEK_SESSION, TAG_ACCEPTOR,
    TAG_CLIENT, TAG_CONN, TAG_MASK, TAG_ORIGIN, TAG_SERVER, TAG_WATCH, TIMER_CONN, TIMER_ORIGIN,
    acceptor_t, descriptors_taken, loop_t, plan_ref_t, queue_t,
)
from lbcore._plan cimport LISTENER_HTTP, listener_t, map_image, plan_listeners
from lbcore._relay cimport pipes_trim, relay_free, relay_init
from lbcore._scoreboard cimport (
    END_SHUTDOWN, MAX_LISTENERS, MAX_POOLS, SEAT_DRAINING, SEAT_SERVING, Scoreboard,
)
from lbcore._seek cimport plan_release, queues_poll, share_descriptors
from lbcore._session cimport (
    CHUNK, SESSION_DEAD, chunk_t, session_client_event, session_end, session_found, session_open,
    session_server_event, session_t, session_timeout, session_work, sessions_bury,
)
from lbcore._origin cimport origin_timeout, origins_close
from lbcore._timers cimport timer_node_t, wheel_advance, wheel_init, wheel_timeout
from lbcore._web cimport conn_t, origin_t, web_t
from lbcore.includes.atomics cimport add32, add_below32, store32, store64, sub32
from lbcore.includes.linux cimport (
    CLOCK_MONOTONIC, EAGAIN, ECONNABORTED, EINTR, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM,
    EPOLLEXCLUSIVE, EPOLLIN, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, SOCK_CLOEXEC,
    SOCK_NONBLOCK, accept4, clock_gettime, close, epoll_create1, epoll_ctl, epoll_event,
    epoll_wait, errno, sockaddr, sockaddr_storage, socklen_t, timespec,
)

import os

cdef enum:
    EVENTS = 256                # taken from the kernel at once
    ACCEPT_MOST = 64            # connections one listening socket may bring in a turn
    TIMERS_MOST = 256           # expired timers looked at in a turn; the next goes on with the rest
    SWEEP_MOST = 256            # connections taken in a turn from a socket that is to be closed
    LONGEST_SLEEP = 1000        # ms: an idle worker still shows a heartbeat
    EXHAUSTED_PAUSE = 100       # ms before accepting is tried again without descriptors
    LIMIT_PAUSE = 20            # ms: places freed by other workers are noticed so late
    TROUBLE_EVERY = 10000       # ms between two lines that say that upstream sockets fail
    CALM = 1000                 # ms without exhaustion until it is said to be over

cpdef enum Wake:                # why Loop.run came back; watched descriptors are 1 << number
    WAKE_DRAINED = 1 << 16      # draining, and the last connection has ended
    WAKE_NOTICE = 1 << 17       # Loop.notices has something for the log


cdef uint64_t clock_ms() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t> t.tv_sec * 1000 + <uint64_t> t.tv_nsec // 1000000


# ---- listening sockets -------------------------------------------------------------------------

cdef bint acceptor_listen(loop_t *loop, acceptor_t *acceptor) noexcept nogil:
    cdef epoll_event event
    # A unix socket is shared by all workers: wake one of them, not all.
    event.events = EPOLLIN | (<uint32_t> EPOLLEXCLUSIVE if acceptor.is_unix else 0)
    event.data.u64 = <uint64_t> <uintptr_t> acceptor | TAG_ACCEPTOR
    acceptor.paused = 0
    return epoll_ctl(loop.epoll, EPOLL_CTL_ADD, acceptor.fd, &event) == 0


cdef void acceptor_pause(loop_t *loop, acceptor_t *acceptor, uint32_t pause) noexcept nogil:
    """Leaves connections in the accept queue for a while: none is lost, none spins."""
    cdef epoll_event event
    cdef uint64_t until = loop.now + pause
    epoll_ctl(loop.epoll, EPOLL_CTL_DEL, acceptor.fd, &event)
    acceptor.paused = 1
    if loop.resume_at == 0 or until < loop.resume_at:
        loop.resume_at = until


cdef void exhausted(loop_t *loop, acceptor_t *acceptor) noexcept nogil:
    if not loop.exhausted:
        loop.exhausted = 1
        loop.notices |= NOTICE_DESCRIPTORS
    loop.exhausted_at = loop.now
    loop.seat.accept_pauses += 1
    acceptor_pause(loop, acceptor, EXHAUSTED_PAUSE)


cdef bint room_for_one(loop_t *loop) noexcept nogil:
    """Whether both sockets of another connection fit under the descriptor limit."""
    cdef uint32_t needed = descriptors_taken(loop) + 2
    if needed + 2 * loop.relay.pipes_open > loop.descriptor_limit and loop.relay.pipes_free:
        pipes_trim(&loop.relay)
    if needed + 2 * loop.relay.pipes_open > loop.descriptor_limit and loop.extra:
        # Connections to backends that only rest are worth less than a client.
        needed -= loop.extra
        origins_close(loop, <web_t *> loop.web)
    return needed + 2 * loop.relay.pipes_open <= loop.descriptor_limit


cdef void acceptor_close(loop_t *loop, acceptor_t *acceptor) noexcept nogil:
    """Lets go of a listening socket; connections queued in it are reset if nobody else has it."""
    cdef acceptor_t **link = &loop.acceptors
    cdef epoll_event event
    while link[0] != acceptor:
        link = &link[0].next
    link[0] = acceptor.next
    # The supervisor holds the same socket, so closing alone would leave it in the epoll set.
    epoll_ctl(loop.epoll, EPOLL_CTL_DEL, acceptor.fd, &event)
    if acceptor.plan != NULL:
        plan_release(acceptor.plan)
    close(acceptor.fd)
    free(acceptor)
    loop.listening -= 1


cdef int accept_some(loop_t *loop, acceptor_t *acceptor, int most) noexcept nogil:
    """Accepts up to ``most`` connections; returns how many calls it took, EAGAIN's included.

    The listener's limit does not hold for a socket that retires: what is queued there was promised
    a connection already, and has nowhere else to go.
    """
    cdef const listener_t *listener = plan_listeners(acceptor.plan.image) + acceptor.listener
    cdef uint32_t *open_now = &loop.board.listeners[listener.row].connections
    cdef uint32_t limit = 0 if acceptor.retiring else listener.max_connections
    cdef sockaddr_storage address
    cdef socklen_t length
    cdef int fd, calls = 0
    acceptor.empty = 0
    while calls < most:
        if not room_for_one(loop):
            exhausted(loop, acceptor)
            return calls
        # Counted before it is there: other workers accept at the same moment.
        if limit and not add_below32(open_now, limit):
            loop.board.listener_counters[
                <size_t> loop.seat_index * MAX_LISTENERS + listener.row].paused += 1
            acceptor_pause(loop, acceptor, LIMIT_PAUSE)
            return calls
        length = sizeof(address)
        fd = accept4(acceptor.fd, <sockaddr *> &address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)
        calls += 1
        if fd >= 0:
            if not limit:
                add32(open_now, 1)
            if listener.flags & LISTENER_HTTP:
                conn_open(loop, acceptor, fd, &address, <uint32_t> length)
            else:
                session_open(loop, acceptor, fd, &address, <uint32_t> length)
            continue
        if limit:
            sub32(open_now, 1)
        if errno == EAGAIN:
            acceptor.empty = 1
            # One call too many: ask for fewer next time.
            acceptor.budget = <uint16_t> (calls - 1 if calls > 1 else 1)
            return calls
        if errno == EMFILE or errno == ENFILE or errno == ENOMEM or errno == ENOBUFS:
            exhausted(loop, acceptor)
            return calls
        if errno == EINVAL:
            # It does not listen, or no more. Its events would never end.
            loop.seat.accept_errors += 1
            acceptor.empty = 1
            acceptor_pause(loop, acceptor, EXHAUSTED_PAUSE)
            return calls
        if errno != EINTR and errno != ECONNABORTED:
            # The network's errors of a connection that is already broken: on to the next.
            loop.seat.accept_errors += 1
    return calls


cdef void acceptor_event(loop_t *loop, acceptor_t *acceptor) noexcept nogil:
    cdef uint16_t budget = acceptor.budget
    if acceptor.plan == NULL or acceptor.paused:
        return
    if accept_some(loop, acceptor, budget) == budget and acceptor.budget == budget:
        if budget < ACCEPT_MOST:
            acceptor.budget = budget * 2


cdef void sweep(loop_t *loop, acceptor_t *acceptor) noexcept nogil:
    """Takes what is queued in a socket that retires, and closes it once there is nothing.

    What does not fit into this turn, or under the descriptor limit, is taken later.
    """
    accept_some(loop, acceptor, SWEEP_MOST)
    if acceptor.empty:
        acceptor_close(loop, acceptor)
    elif not acceptor.paused:
        acceptor_pause(loop, acceptor, 0)


cdef void retire(loop_t *loop, acceptor_t *acceptor) noexcept nogil:
    """Nobody needs this listening socket any more: it closes as soon as its queue is empty."""
    if acceptor.plan == NULL:
        acceptor_close(loop, acceptor)
        return
    acceptor_pause(loop, acceptor, 0)
    acceptor.paused = 0
    acceptor.retiring = 1
    sweep(loop, acceptor)


cdef void resume_acceptors(loop_t *loop) noexcept nogil:
    cdef acceptor_t *acceptor = loop.acceptors
    cdef acceptor_t *following
    loop.resume_at = 0
    while acceptor != NULL:
        following = acceptor.next
        if acceptor.paused and acceptor.plan != NULL:
            acceptor.paused = 0
            if acceptor.retiring:
                sweep(loop, acceptor)
            else:
                acceptor_listen(loop, acceptor)
        acceptor = following


# ---- a turn ------------------------------------------------------------------------------------

cdef int time_to_sleep(const loop_t *loop, uint64_t until) noexcept nogil:
    cdef int sleep
    if (loop.work_head != NULL or loop.dead != NULL or loop.web_busy
            or (loop.draining and loop.sessions == 0)):
        return 0
    sleep = wheel_timeout(&loop.wheel, loop.now, LONGEST_SLEEP)
    if loop.resume_at:
        sleep = sooner(loop, loop.resume_at, sleep)
    if loop.queue_at:
        sleep = sooner(loop, loop.queue_at, sleep)
    if loop.access.flush_at:
        sleep = sooner(loop, loop.access.flush_at, sleep)
    if until:
        sleep = sooner(loop, until, sleep)
    return sleep


cdef inline int sooner(const loop_t *loop, uint64_t when, int sleep) noexcept nogil:
    if when <= loop.now:
        return 0
    return <int> (when - loop.now) if when - loop.now < <uint64_t> sleep else sleep


cdef uint32_t turn(loop_t *loop, epoll_event *events, uint64_t until) noexcept nogil:
    """One turn; returns Wake bits and bits of watched descriptors that became readable.

    It does not sleep beyond ``until``, in ms (0: as long as nothing happens).
    """
    cdef int count, i
    cdef uint32_t woken = 0
    cdef uint64_t data
    cdef timer_node_t *timer
    cdef session_t *s
    cdef session_t *work
    count = epoll_wait(loop.epoll, events, EVENTS, time_to_sleep(loop, until))
    loop.now = clock_ms()
    store64(&loop.seat.heartbeat_ms, loop.now)
    loop.seat.turns += 1
    if loop.web != NULL:
        # What resting connections say is heard first, or a request that came with it would be sent
        # on one of them, and find there what was not meant for it.
        for i in range(count):
            data = events[i].data.u64
            if data & TAG_MASK == TAG_ORIGIN and (
                    <origin_t *> <uintptr_t> (data - TAG_ORIGIN)).exchange == NULL:
                conn_origin_event(
                    loop, <origin_t *> <uintptr_t> (data - TAG_ORIGIN), events[i].events)
    for i in range(count):
        data = events[i].data.u64
        if data & TAG_MASK == TAG_CLIENT:
            session_client_event(loop, <session_t *> <uintptr_t> data, events[i].events)
        elif data & TAG_MASK == TAG_SERVER:
            session_server_event(
                loop, <session_t *> <uintptr_t> (data - TAG_SERVER), events[i].events)
        elif data & TAG_MASK == TAG_CONN:
            conn_event(loop, <conn_t *> <uintptr_t> (data - TAG_CONN), events[i].events)
        elif data & TAG_MASK == TAG_ORIGIN:
            conn_origin_event(
                loop, <origin_t *> <uintptr_t> (data - TAG_ORIGIN), events[i].events)
        elif data & TAG_MASK == TAG_ACCEPTOR:
            acceptor_event(loop, <acceptor_t *> <uintptr_t> (data - TAG_ACCEPTOR))
        else:
            woken |= <uint32_t> 1 << <uint32_t> (data >> 3)
    for _ in range(TIMERS_MOST):
        timer = wheel_advance(&loop.wheel, loop.now)
        if timer == NULL:
            break
        if timer.kind == TIMER_CONN:
            conn_timeout(loop, <conn_t *> timer)
        elif timer.kind == TIMER_ORIGIN:
            origin_timeout(loop, <web_t *> loop.web, <origin_t *> timer)
        else:
            session_timeout(loop, <session_t *> timer)
    work = <session_t *> loop.work_head
    loop.work_head = NULL
    loop.work_tail = NULL
    while work != NULL:
        s = work
        work = work.work
        session_work(loop, s)
    if loop.queue_at and loop.queue_at <= loop.now:
        queues_poll(loop)
    if loop.resume_at and loop.resume_at <= loop.now:
        resume_acceptors(loop)
    if loop.web != NULL:
        loop.web_busy = web_work(loop, <web_t *> loop.web)
    sessions_bury(loop)
    # Not at the first place that comes free: at the limit, each end of a connection makes one.
    if loop.exhausted and loop.now - loop.exhausted_at >= CALM and room_for_one(loop):
        loop.exhausted = 0
        loop.notices |= NOTICE_RESUMED
    loop.seat.pipes = loop.relay.pipes_open - loop.relay.pipes_free
    loop.seat.buffers = loop.relay.buffers
    if loop.access.flush_at and loop.access.flush_at <= loop.now:
        access_flush(&loop.access, loop.now)
    count_lines(loop)
    if loop.draining and loop.sessions == 0 and loop.acceptors == NULL:
        woken |= WAKE_DRAINED
    if loop.notices:
        # Trouble may come with every connection; one line in a while says it.
        if (loop.notices & (NOTICE_TROUBLE | NOTICE_SPOOL)
                and loop.now - loop.trouble_at < TROUBLE_EVERY):
            loop.notices &= ~<uint32_t> (NOTICE_TROUBLE | NOTICE_SPOOL)
        if loop.notices:
            woken |= WAKE_NOTICE
    return woken


cdef inline void count_lines(loop_t *loop) noexcept nogil:
    loop.seat.log_lines = loop.access.lines
    loop.seat.log_dropped = loop.access.dropped


# ---- the Python shell's door -------------------------------------------------------------------

cdef class Loop:
    """A worker's event loop. Not thread-safe: one thread makes it, steers it and runs it.

    ``seat`` is this process's seat on the scoreboard, ``bell`` an eventfd that is rung when a
    backend fails too often in a row, ``descriptor_limit`` the RLIMIT_NOFILE in force.
    """

    cdef loop_t loop
    cdef epoll_event events[EVENTS]
    cdef readonly Scoreboard scoreboard

    def __cinit__(self, Scoreboard scoreboard, seat: int, bell: int, descriptor_limit: int):
        cdef loop_t *loop = &self.loop
        self.scoreboard = scoreboard
        loop.epoll = -1
        loop.board = scoreboard.board
        loop.seat_index = seat
        loop.seat = &loop.board.seats[loop.seat_index]
        loop.bell = bell
        loop.descriptor_limit = descriptor_limit
        loop.now = clock_ms()
        loop.started = loop.now
        loop.queues = <queue_t *> calloc(MAX_POOLS, sizeof(queue_t))
        if loop.queues == NULL or not relay_init(&loop.relay):
            raise MemoryError
        if not picker_init(&loop.picker, &loop.board, loop.seat_index):
            raise MemoryError
        wheel_init(&loop.wheel, loop.now)
        loop.found[<int> SEEK_SESSION] = session_found
        loop.epoll = epoll_create1(EPOLL_CLOEXEC)
        if loop.epoll < 0:
            raise OSError(errno, os.strerror(errno), "epoll_create1")
        loop.seat.pid = os.getpid()
        store32(&loop.seat.state, SEAT_SERVING)

    def __dealloc__(self):
        cdef loop_t *loop = &self.loop
        cdef chunk_t *chunk
        if loop.epoll >= 0:
            self.end_all()
            access_close(&loop.access)
            count_lines(loop)
        while loop.acceptors != NULL:
            acceptor_close(loop, loop.acceptors)
        if loop.plan != NULL:
            plan_release(loop.plan)
        while loop.chunks != NULL:
            chunk = <chunk_t *> loop.chunks
            loop.chunks = chunk.next
            free(chunk.sessions)
            free(chunk)
        if loop.web != NULL:
            web_free(loop, <web_t *> loop.web)
        relay_free(&loop.relay)
        picker_free(&loop.picker)
        free(loop.queues)
        if loop.epoll >= 0:
            close(loop.epoll)

    @property
    def version(self) -> int:
        """Version of the plan in force; 0 before the first."""
        return self.loop.plan.image.version if self.loop.plan != NULL else 0

    @property
    def connections(self) -> int:
        """Client connections that have not ended."""
        return self.loop.sessions

    @property
    def finished(self) -> bool:
        """Whether a drain is over: no connection, and none queued in a socket that was swept."""
        return (self.loop.draining != 0 and self.loop.sessions == 0
                and self.loop.acceptors == NULL)

    @property
    def draining(self) -> bool:
        """Whether :meth:`drain` was called."""
        return self.loop.draining != 0

    def notices(self) -> list:
        """What happened since the last call that belongs into the log."""
        cdef uint32_t bits = self.loop.notices
        self.loop.notices = 0
        found = []
        if bits & NOTICE_DESCRIPTORS:
            found.append("accept_paused")
        if bits & NOTICE_RESUMED:
            found.append("accept_resumed")
        if bits & NOTICE_TROUBLE:
            self.loop.trouble_at = self.loop.now
            found.append("upstream_socket_failed")
        if bits & NOTICE_SPOOL:
            self.loop.trouble_at = self.loop.now
            found.append("spool_failed")
        return found

    def watch(self, fd: int, number: int) -> None:
        """Makes :meth:`run` come back with bit ``number`` (0..15) when ``fd`` is readable."""
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = <uint64_t> number << 3 | TAG_WATCH
        if epoll_ctl(self.loop.epoll, EPOLL_CTL_ADD, fd, &event) < 0:
            raise OSError(errno, os.strerror(errno), "epoll_ctl")

    def unwatch(self, fd: int) -> None:
        """Stops watching ``fd``; not an error when it was not watched."""
        cdef epoll_event event
        epoll_ctl(self.loop.epoll, EPOLL_CTL_DEL, fd, &event)

    def access(self, fd: int, format: int) -> None:
        """Where lines of the access log go from now on, and an AccessFormat; -1: nowhere.

        Owns ``fd``, whatever happens. Raises MemoryError, and there is no log then.
        """
        if not access_open(&self.loop.access, fd, format):
            raise MemoryError("no memory or descriptors for the access log")

    def add_socket(self, id: int, fd: int, is_unix: bool) -> None:
        """Takes over a listening socket; it is served once a plan names it."""
        cdef acceptor_t *acceptor = <acceptor_t *> calloc(1, sizeof(acceptor_t))
        if acceptor == NULL:
            raise MemoryError
        acceptor.id = id
        acceptor.fd = fd
        acceptor.is_unix = is_unix
        acceptor.budget = 1
        acceptor.next = self.loop.acceptors
        self.loop.acceptors = acceptor
        self.loop.listening += 1

    def apply(self, image_fd: int, sockets: list) -> None:
        """Swaps to the plan in ``image_fd`` (which stays the caller's).

        ``sockets``: (id, listener index) pairs. Sockets that are not named are accepted from
        until their queue is empty and closed. Connections keep the plan they began with. Raises
        KeyError for an unknown socket or listener, ImageError or OSError for a bad image;
        nothing has changed then.
        """
        cdef loop_t *loop = &self.loop
        cdef acceptor_t *acceptor
        cdef acceptor_t *following
        cdef plan_ref_t *plan
        cdef plan_ref_t *old = loop.plan
        if loop.draining:
            raise ValueError("draining: no plan is taken any more")
        served = dict(sockets)
        known = {id for id, _ in self.sockets()}
        if not known.issuperset(served):
            raise KeyError(f"sockets {sorted(set(served) - known)} were never sent")
        plan = <plan_ref_t *> malloc(sizeof(plan_ref_t))
        if plan == NULL:
            raise MemoryError
        try:
            plan.image = map_image(image_fd)
        except BaseException:
            free(plan)
            raise
        plan.references = 1
        plan.expressions = NULL
        if plan.image.expressions.count:
            plan.expressions = expressions_make(plan.image)
        if (plan.image.expressions.count and plan.expressions == NULL) or not self.make_web():
            plan_release(plan)
            raise MemoryError
        if any(not 0 <= index < plan.image.listener_count for index in served.values()):
            plan_release(plan)
            raise KeyError("a socket is to serve a listener that the plan does not have")
        # What can fail comes first. Events of a socket are looked at in the next turn, not before.
        acceptor = loop.acceptors
        while acceptor != NULL:
            if (acceptor.id in served and (acceptor.plan == NULL or acceptor.retiring)
                    and not acceptor_listen(loop, acceptor)):
                failure = OSError(errno, os.strerror(errno), "epoll_ctl on a listening socket")
                self.listen_no_more(served)
                plan_release(plan)
                raise failure
            acceptor = acceptor.next
        acceptor = loop.acceptors
        while acceptor != NULL:
            following = acceptor.next
            if acceptor.id in served:
                if acceptor.plan != NULL:
                    plan_release(acceptor.plan)
                acceptor.plan = plan
                acceptor.listener = served[acceptor.id]
                acceptor.retiring = 0
                plan.references += 1
            else:
                retire(loop, acceptor)
            acceptor = following
        loop.plan = plan
        share_descriptors(loop)
        if loop.web != NULL:
            web_plan_changed(loop, <web_t *> loop.web)
        store32(&loop.seat.plan_version, plan.image.version)
        if old != NULL:
            plan_release(old)

    cdef bint make_web(self):
        """The HTTP side; False without memory."""
        cdef uint64_t seed[2]
        if self.loop.web == NULL:
            raw = os.urandom(sizeof(seed))
            memcpy(seed, <const char *> raw, sizeof(seed))
            self.loop.web = web_make(&self.loop, seed)
        return self.loop.web != NULL

    cdef listen_no_more(self, dict served):
        """Takes back what ``apply`` did before it found that it cannot go on."""
        cdef acceptor_t *acceptor = self.loop.acceptors
        while acceptor != NULL:
            if acceptor.id in served and (acceptor.plan == NULL or acceptor.retiring):
                acceptor_pause(&self.loop, acceptor, 0)
            acceptor = acceptor.next

    def sockets(self) -> list:
        """(id, listener index) of every listening socket here; index -1: not served."""
        cdef acceptor_t *acceptor = self.loop.acceptors
        found = []
        while acceptor != NULL:
            found.append((acceptor.id, acceptor.listener if acceptor.plan != NULL else -1))
            acceptor = acceptor.next
        return found

    def socket_fd(self, id: int) -> int:
        """Descriptor of a listening socket, which stays the loop's. Raises KeyError."""
        cdef acceptor_t *acceptor = self.loop.acceptors
        while acceptor != NULL:
            if acceptor.id == id:
                return acceptor.fd
            acceptor = acceptor.next
        raise KeyError(id)

    def release(self, ids: list) -> None:
        """Closes listening sockets that somebody else serves from now on."""
        cdef acceptor_t *acceptor = self.loop.acceptors
        cdef acceptor_t *following
        while acceptor != NULL:
            following = acceptor.next
            if acceptor.id in ids:
                acceptor_close(&self.loop, acceptor)
            acceptor = following

    def drain(self, sweep: bool) -> None:
        """Accepts nothing more (with ``sweep``, what is queued already) and ends when empty."""
        cdef acceptor_t *acceptor = self.loop.acceptors
        cdef acceptor_t *following
        while acceptor != NULL:
            following = acceptor.next
            if sweep:
                retire(&self.loop, acceptor)
            else:
                acceptor_close(&self.loop, acceptor)
            acceptor = following
        self.loop.draining = 1
        if self.loop.web != NULL:
            web_drain(&self.loop, <web_t *> self.loop.web)
        store32(&self.loop.seat.state, SEAT_DRAINING)

    def end_all(self) -> None:
        """Resets every connection."""
        cdef chunk_t *chunk = <chunk_t *> self.loop.chunks
        cdef int i
        while chunk != NULL:
            for i in range(CHUNK):
                if chunk.sessions[i].state != SESSION_DEAD:
                    session_end(&self.loop, &chunk.sessions[i], END_SHUTDOWN, True)
            chunk = chunk.next
        if self.loop.web != NULL:
            web_end_all(&self.loop, <web_t *> self.loop.web)

    def run(self, most_ms: int = -1) -> int:
        """Serves until a watched descriptor is readable, a notice stands or the drain is done.

        Returns Wake bits and ``1 << number`` of watched descriptors; 0 after ``most_ms``
        milliseconds (-1: no limit).
        """
        cdef uint32_t woken = 0
        cdef uint64_t until = 0
        if most_ms >= 0:
            until = clock_ms() + <uint64_t> most_ms
        with nogil:
            while woken == 0:
                woken = turn(&self.loop, self.events, until)
                if until and self.loop.now >= until:
                    break
        return woken
