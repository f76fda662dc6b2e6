# The line of the access log that an exchange leaves behind.

from libc.stdint cimport uint64_t

from lbcore._loop cimport loop_t
from lbcore._web cimport exchange_t, web_t

# `total`: microseconds from its first byte to its end.
cdef void exchange_record(loop_t *loop, web_t *web, exchange_t *x, uint64_t total) noexcept nogil
