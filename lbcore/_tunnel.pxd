# From a client's connection and an exchange to a tunnel, and what is left of them at its end.

from lbcore._loop cimport loop_t
from lbcore._web cimport conn_t, exchange_t, web_t

# The backend agreed to another protocol (X_TUNNEL): both sockets go to a session, which relays
# bytes as they are. The exchange stays for the log line, and the connection, without a socket,
# because that line speaks of its client. False without memory: the exchange is freed, and the
# client's socket is still the connection's.
cdef bint tunnel_begin(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil

# It ended, for this EndReason: frees the exchange. The connection is to be forgotten.
cdef void tunnel_end(loop_t *loop, web_t *web, exchange_t *x, int reason) noexcept nogil
