# The access log: lines gathered in memory and written in batches, never at the price of traffic.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbcore._proxy cimport endpoint_t

cdef enum:
    NO_TIME = 0xFFFFFFFF        # that phase was never reached

ctypedef struct slice_t:
    const char *data
    uint32_t size

ctypedef struct record_t:       # one request, or one TCP connection; zeroed fields are absent
    uint8_t http                # 0: a TCP connection; method to request_id are absent
    uint8_t minor
    uint16_t status             # 0: none was sent
    uint16_t attempts
    uint8_t reason              # HttpEnd, or EndReason of a TCP connection
    uint8_t rule                # Rule that a bad request broke
    uint8_t tunnel              # it became one
    uint64_t started_us         # CLOCK_REALTIME
    uint32_t queue_us           # until a backend had a place
    uint32_t connect_us
    uint32_t first_byte_us      # from the end of the request head to the response's first byte
    uint64_t total_us
    uint64_t bytes_up           # from the client, heads included
    uint64_t bytes_down         # to the client, heads included
    endpoint_t client
    endpoint_t peer             # differs from client behind trusted proxies
    slice_t listener
    slice_t route
    slice_t pool
    slice_t backend
    slice_t method
    slice_t target
    slice_t host
    slice_t referer
    slice_t user_agent
    slice_t user                # of basic authentication
    slice_t request_id

cpdef enum AccessFormat:
    ACCESS_NONE = 0
    ACCESS_JSON = 1
    ACCESS_COMBINED = 2

ctypedef struct access_t:       # one per worker
    char *buffer                # NULL: there is no log
    uint32_t used
    uint32_t format             # AccessFormat
    int fd                      # -1: none
    uint64_t dropped            # lines, since the worker started
    uint64_t lines              # written, or gathered to be
    uint64_t flush_at           # ms: when what is gathered must go out; 0: nothing is gathered
    uint32_t limit              # bytes of the longest line
    uint32_t pause              # ms until a reader that took nothing is tried again; 0: it took all
    uint8_t way                 # how to write without blocking: a Way of _access.pyx
    uint8_t torn                # the buffer begins with the rest of a line
    uint8_t pad[6]
    int pipe[2]                 # to splice from; -1: not needed
    int64_t json_second         # what `json_time` says
    int64_t combined_second
    char json_time[24]
    char combined_time[32]

# Takes a descriptor into use (and owns it, whatever happens); -1 ends the log. Returns False
# without memory or descriptors; then there is no log. What was gathered is written to the old one
# first.
# The access_t is all zero before the first call.
cdef bint access_open(access_t *access, int fd, uint32_t format) noexcept nogil

# Ends the log. The one call that may wait, for a reader, up to a quarter of a second.
cdef void access_close(access_t *access) noexcept nogil

# Adds a line. Writes when the buffer is nearly full; a line that fits nowhere is dropped, counted.
cdef void access_line(access_t *access, const record_t *record, uint64_t now_ms) noexcept nogil

# Writes what is gathered. Never blocks: what a pipe does not take stays and is tried again, at
# `flush_at`; call this when that has come.
cdef void access_flush(access_t *access, uint64_t now_ms) noexcept nogil
