# The request on its way: its body collected from the client, its head and body sent to the backend.

from lbcore._loop cimport loop_t
from lbcore._web cimport exchange_t, web_t

cdef enum UploadResult:
    UPLOAD_WAIT = 0             # until a socket becomes ready
    UPLOAD_AGAIN = 1            # more to do, but others come first
    UPLOAD_DONE = 2             # collected: all is here; sent: all is out
    UPLOAD_CLIENT_GONE = -1
    UPLOAD_BAD = -2             # no valid chunk, or trailer
    UPLOAD_TOO_LARGE = -3
    UPLOAD_NO_ROOM = -4         # memory or disk
    UPLOAD_LOST = -5            # the backend takes no more

# Takes what came behind the head out of `request`: `early` bytes of body stay there; what belongs
# to later requests goes back to the connection.
cdef int upload_begin(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil

# Reads the body to its end before a backend is asked for.
cdef int upload_collect(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil

# Sends the head, of `size` bytes in web.output, and what there is of the body. UPLOAD_LOST: the
# backend had closed.
cdef int upload_send(loop_t *loop, web_t *web, exchange_t *x, unsigned size) noexcept nogil

# The head alone, of `size` bytes in web.output, went out with the connect as far as relay.given
# says.
cdef int upload_sent(loop_t *loop, web_t *web, exchange_t *x, unsigned size) noexcept nogil

# Goes on sending: what waits, a collected body, a streamed one.
cdef int upload_pump(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil
