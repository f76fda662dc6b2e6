# Tunnels, from the side of HTTP: see _tunnel.pxd. The session that relays them is in _session.pyx.

from lbcore._ending cimport exchange_free
from lbcore._origin cimport origin_take_out
from lbcore._relay cimport buffer_give, buffer_t
from lbcore._scoreboard cimport (
    END_CLIENT_IDLE, END_SERVER_IDLE, END_SHUTDOWN, HTTP_INTERNAL, HTTP_SHUTDOWN,
    HTTP_TUNNEL_IDLE,
)
from lbcore._session cimport session_tunnel
from lbcore._timers cimport timer_clear
from lbcore._web cimport X_ABORT


cdef bint tunnel_begin(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    cdef exchange_t *x = conn.exchange
    cdef buffer_t *down = x.answer      # what the client hears first
    x.answer = NULL
    if not session_tunnel(loop, conn, x, down):
        buffer_give(&loop.relay, down)
        x.state = X_ABORT
        x.reason = HTTP_INTERNAL
        exchange_free(loop, web, x)
        conn.exchange = NULL
        return False
    # The session has both sockets now, and the connection's place in all counts.
    origin_take_out(loop, web, x.origin)
    x.origin = NULL
    conn.client.fd = -1
    conn.rest = NULL
    timer_clear(&loop.wheel, &conn.timer)
    return True


cdef void tunnel_end(loop_t *loop, web_t *web, exchange_t *x, int reason) noexcept nogil:
    cdef conn_t *conn = x.conn
    if reason == END_SHUTDOWN:
        x.reason = HTTP_SHUTDOWN
    elif reason == END_CLIENT_IDLE or reason == END_SERVER_IDLE:
        x.reason = HTTP_TUNNEL_IDLE
    exchange_free(loop, web, x)
    conn.exchange = NULL
