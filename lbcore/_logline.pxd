# How a line of the access log looks.

from libc.stdint cimport uint32_t

from lbcore._access cimport access_t, record_t

# Bytes that the line of a record can take at most: never more than `limit`, which is 4,096 or more.
# Texts are cut to make that so; from 32,768 on, hardly any is.
cdef uint32_t line_most(const record_t *record, uint32_t limit) noexcept nogil

# Writes a line in `access.format` to room of line_most(record, access.limit) bytes; returns the
# place behind it.
cdef char *line_write(char *at, access_t *access, const record_t *record) noexcept nogil
