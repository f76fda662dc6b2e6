# The response on its way: its head understood and made anew, its body passed on.

from lbcore._loop cimport loop_t
from lbcore._web cimport exchange_t, web_t

cdef enum DownloadResult:
    DOWNLOAD_WAIT = 0           # until a socket becomes ready
    DOWNLOAD_AGAIN = 1          # more to do, but others come first
    DOWNLOAD_HEAD = 2           # web.reply is the head of a final response; see download_begin
    DOWNLOAD_SWITCH = 3         # web.reply is 101: the connection becomes a tunnel
    DOWNLOAD_COMPLETE = 4       # the backend has said all; the client may not have it yet
    DOWNLOAD_DONE = 5           # and the client has it
    DOWNLOAD_LOST = -1          # the backend ended before its head was complete
    DOWNLOAD_BAD = -2           # what it says is no response
    DOWNLOAD_CUT = -3           # the backend ended, or talked nonsense, within the body
    DOWNLOAD_CLIENT_GONE = -4
    DOWNLOAD_NO_ROOM = -5       # memory or disk

# Reads until the head of a response is complete. Its bytes are then at `data`, `size` of them, with
# what came behind it; they stay until the next read. 1xx responses are passed on meanwhile.
cdef int download_head(loop_t *loop, web_t *web, exchange_t *x, char **data,
                       size_t *size) noexcept nogil

# Keeps the head that is at `data` in exchange.answer, until some of its body is here. False: no
# memory.
cdef bint download_keep_head(loop_t *loop, exchange_t *x, const char *data,
                             size_t size) noexcept nogil

# The first read behind a head that was kept: parses that again, into web.reply. DOWNLOAD_HEAD:
# `size` bytes of the body are in web.input.
cdef int download_behind_head(loop_t *loop, web_t *web, exchange_t *x, size_t *size) noexcept nogil

# web.reply is the head that was kept.
cdef void download_parse_kept(web_t *web, exchange_t *x) noexcept nogil

# Sends the head, of `size` bytes in web.output, and what of the body is there already: `extra`
# bytes at `body`. Sets down_left, decodes, frames. DOWNLOAD_BAD: they are no such body, and nothing
# was sent.
cdef int download_begin(loop_t *loop, web_t *web, exchange_t *x, unsigned size, char *body,
                        size_t extra) noexcept nogil

# Passes on what can be passed on now.
cdef int download_pump(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil

# Whether something for the client waits here.
cdef bint download_pending(const exchange_t *x) noexcept nogil

# Asks for an event when the client takes more.
cdef void download_arm_client(loop_t *loop, exchange_t *x) noexcept nogil
