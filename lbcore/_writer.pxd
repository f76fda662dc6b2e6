# Bytes written one after another into room that somebody else gave.
#
# What does not fit is left out whole and remembered, so a writer is asked once, at the end.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, strlen

ctypedef struct writer_t:
    char *start
    char *at
    char *end
    bint full                   # something was left out

cdef inline void writer_begin(writer_t *writer, char *out, size_t room) noexcept nogil:
    writer.start = writer.at = out
    writer.end = out + room
    writer.full = False

# How much was written; 0 when the room did not suffice.
cdef inline uint32_t writer_end(const writer_t *writer) noexcept nogil:
    return 0 if writer.full else <uint32_t> (writer.at - writer.start)

cdef inline void put(writer_t *writer, const char *data, size_t size) noexcept nogil:
    if size > <size_t> (writer.end - writer.at):
        writer.full = True
        return
    memcpy(writer.at, data, size)
    writer.at += size

cdef inline void put_text(writer_t *writer, const char *text) noexcept nogil:
    put(writer, text, strlen(text))

cdef inline void put_byte(writer_t *writer, char byte) noexcept nogil:
    if writer.at == writer.end:
        writer.full = True
        return
    writer.at[0] = byte
    writer.at += 1

cdef inline void put_number(writer_t *writer, uint64_t value) noexcept nogil:
    cdef char digits[20]
    cdef uint32_t at = 20
    while True:
        at -= 1
        digits[at] = <char> (c'0' + value % 10)
        value //= 10
        if value == 0:
            break
    put(writer, digits + at, 20 - at)

cdef inline char lower_byte(char byte) noexcept nogil:
    return byte + 32 if c'A' <= byte <= c'Z' else byte
