# The line of the access log that an exchange leaves behind: see _record.pxd.

from libc.stdint cimport uint64_t
from libc.string cimport memset

from lbcore._access cimport access_line, record_t, slice_t
from lbcore._plan cimport ACTION_POOL, plan_header_t, pool_backends, text_of, text_t
from lbcore._relay cimport buffer_data
from lbcore._scoreboard cimport NO_ROW
from lbcore._web cimport X_HTTP_10, X_TUNNEL, listener_of, mark_t, pool_of, route_of


cdef void slice_mark(slice_t *out, const exchange_t *x, const mark_t *piece) noexcept nogil:
    out.data = buffer_data(x.request) + piece.at
    out.size = piece.size


cdef void slice_text(slice_t *out, const plan_header_t *plan, text_t text) noexcept nogil:
    out.data = text_of(plan, text)
    out.size = text.size


cdef void exchange_record(loop_t *loop, web_t *web, exchange_t *x, uint64_t total) noexcept nogil:
    cdef record_t record
    cdef const plan_header_t *plan = x.seek.plan.image
    memset(&record, 0, sizeof(record))
    record.http = 1
    record.minor = 0 if x.flags & X_HTTP_10 else 1
    record.status = x.status
    record.attempts = x.seek.attempts if x.seek.attempts > x.tries else x.tries
    record.reason = x.reason
    record.rule = x.rule
    record.tunnel = x.state == X_TUNNEL
    record.started_us = x.started_us + web.wall_offset
    record.queue_us = x.queue_time
    record.connect_us = x.connect_time
    record.first_byte_us = x.first_byte_time
    record.total_us = total
    record.bytes_up = x.bytes_up
    record.bytes_down = x.bytes_down
    record.client = x.client
    record.peer = x.conn.peer
    slice_text(&record.listener, plan, listener_of(x).name)
    if x.route != NO_ROW:
        slice_text(&record.route, plan, route_of(x).name)
        if route_of(x).action == ACTION_POOL:
            slice_text(&record.pool, plan, pool_of(x).name)
            if x.seek.attempts or x.tries:
                slice_text(&record.backend, plan,
                           pool_backends(plan, pool_of(x))[x.seek.backend].name)
    if x.request != NULL:
        if x.method_size:
            # It ends one byte before the target; an empty line may stand before it.
            record.method.data = buffer_data(x.request) + x.target.at - 1 - x.method_size
            record.method.size = x.method_size
        slice_mark(&record.target, x, &x.target)
        slice_mark(&record.host, x, &x.host)
        slice_mark(&record.referer, x, &x.referer)
        slice_mark(&record.user_agent, x, &x.agent)
    record.user.data = x.user
    record.user.size = x.user_size
    record.request_id.data = x.id
    record.request_id.size = x.id_size
    access_line(&loop.access, &record, loop.now)
