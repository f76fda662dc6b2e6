# Fields copied and changed. The doors and what they promise are in _rules.pxd.
#
# Most lines of most heads go on as they came, so runs of them are copied whole. A line qualifies
# when it stands in the source as it would be written: one space behind the colon, and no white
# space before its end.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memmove, strlen

from lbcore._authority cimport authority_parse, authority_t
from lbcore._forwarded cimport forwarded_stranger
from lbcore._http1 cimport (
    FIELD_DATE, FIELD_FORWARDED, FIELD_OTHER, FIELD_UNDERSCORE, FIELD_VIA, FIELD_X_FORWARDED_FOR,
    FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PROTO, FIELD_X_REQUEST_ID, field_t,
)
from lbcore._plan cimport FIELD_REMOVE, FIELD_SET, field_op_t, text_of
from lbcore._template cimport TEMPLATE_FIELD, template_room, template_write
from lbcore._writer cimport lower_byte, put, put_text


cdef inline const field_op_t *rules_of(const facts_t *facts, span_t rules) noexcept nogil:
    return <const field_op_t *> (<const char *> facts.plan + rules.at)


cdef inline bint is_text(const char *text, uint32_t size, const char *other) noexcept nogil:
    return size == strlen(other) and memcmp(text, other, size) == 0


cdef bint is_framing(const char *lower, uint32_t size) noexcept nogil:
    """Fields that no rule may touch: what a message means depends on them, or a connection."""
    return (is_text(lower, size, b"content-length") or is_text(lower, size, b"transfer-encoding")
            or is_text(lower, size, b"connection") or is_text(lower, size, b"host")
            or is_text(lower, size, b"keep-alive") or is_text(lower, size, b"proxy-connection")
            or is_text(lower, size, b"te") or is_text(lower, size, b"trailer")
            or is_text(lower, size, b"upgrade") or is_text(lower, size, b"expect"))


# ---- rules -------------------------------------------------------------------------------------

cdef bint same_name(const char *name, uint32_t size, const char *lower, uint32_t lower_size,
                    bint fold) noexcept nogil:
    """``fold``: "_" in the name counts as "-", as it does for CGI and WSGI."""
    cdef uint32_t i
    cdef char byte
    if size != lower_size:
        return False
    for i in range(size):
        byte = lower_byte(name[i])
        if byte != lower[i] and not (fold and byte == c'_' and lower[i] == c'-'):
            return False
    return True


cdef bint rule_takes(const facts_t *facts, span_t rules, uint32_t first, const char *name,
                     uint32_t size, bint fold) noexcept nogil:
    """Whether a rule from the ``first`` on replaces or removes what has this name so far."""
    cdef const field_op_t *rule = rules_of(facts, rules)
    cdef const char *lower
    cdef uint32_t i
    for i in range(first, rules.count):
        if rule[i].op != FIELD_SET and rule[i].op != FIELD_REMOVE:
            continue
        lower = text_of(facts.plan, rule[i].lower)
        if same_name(name, size, lower, rule[i].lower.size, fold):
            return not is_framing(lower, rule[i].lower.size)
    return False


cdef bint rules_take(const facts_t *facts, span_t rules, const char *lower) noexcept nogil:
    return rules.count > 0 and rule_takes(facts, rules, 0, lower, <uint32_t> strlen(lower), False)


cdef uint64_t rules_taken(const facts_t *facts, span_t rules) noexcept nogil:
    cdef uint64_t taken = 0
    if rules.count == 0:
        return 0
    if rules_take(facts, rules, b"x-forwarded-for"):
        taken |= 1ULL << FIELD_X_FORWARDED_FOR
    if rules_take(facts, rules, b"x-forwarded-proto"):
        taken |= 1ULL << FIELD_X_FORWARDED_PROTO
    if rules_take(facts, rules, b"x-forwarded-host"):
        taken |= 1ULL << FIELD_X_FORWARDED_HOST
    if rules_take(facts, rules, b"forwarded"):
        taken |= 1ULL << FIELD_FORWARDED
    if rules_take(facts, rules, b"x-request-id"):
        taken |= 1ULL << FIELD_X_REQUEST_ID
    if rules_take(facts, rules, b"via"):
        taken |= 1ULL << FIELD_VIA
    if rules_take(facts, rules, b"date"):
        taken |= 1ULL << FIELD_DATE
    return taken


cdef inline bint is_blank(char byte) noexcept nogil:
    return byte == c' ' or byte == c'\t'


cdef void trim(char *start, writer_t *writer) noexcept nogil:
    """Takes white space off both ends of what was written since ``start``."""
    cdef char *first = start
    while writer.at > start and is_blank((writer.at - 1)[0]):
        writer.at -= 1
    while first < writer.at and is_blank(first[0]):
        first += 1
    if first > start:
        memmove(start, first, writer.at - first)
        writer.at -= first - start


cdef void rules_write(const facts_t *facts, span_t rules, writer_t *writer) noexcept nogil:
    cdef const field_op_t *rule = rules_of(facts, rules)
    cdef const char *lower
    cdef char *start
    cdef char *value
    cdef uint32_t i
    for i in range(rules.count):
        lower = text_of(facts.plan, rule[i].lower)
        if rule[i].op == FIELD_REMOVE or is_framing(lower, rule[i].lower.size) \
                or rule_takes(facts, rules, i + 1, lower, rule[i].lower.size, False):
            continue
        start = writer.at
        put(writer, text_of(facts.plan, rule[i].name), rule[i].name.size)
        put_text(writer, b": ")
        value = writer.at
        template_write(facts, rule[i].value, TEMPLATE_FIELD, writer)
        trim(value, writer)
        if writer.at == value:
            writer.at = start
        else:
            put_text(writer, b"\r\n")


cdef uint64_t rules_room(const facts_t *facts, span_t rules) noexcept nogil:
    cdef const field_op_t *rule = rules_of(facts, rules)
    cdef uint64_t room = 0
    cdef uint32_t i
    for i in range(rules.count):
        room += rule[i].name.size + 4 + template_room(facts, rule[i].value)
    return room


cdef bint rules_host(const facts_t *facts, span_t rules, writer_t *writer) noexcept nogil:
    cdef const field_op_t *rule = rules_of(facts, rules)
    cdef char *start = writer.at
    cdef uint32_t left = rules.count
    cdef authority_t authority
    while left:
        left -= 1
        if rule[left].op == FIELD_SET and is_text(
                text_of(facts.plan, rule[left].lower), rule[left].lower.size, b"host"):
            template_write(facts, rule[left].value, TEMPLATE_FIELD, writer)
            if authority_parse(<const uint8_t *> start, <uint32_t> (writer.at - start), &authority):
                return True
            writer.at = start
            return False
    return False


# ---- copying -----------------------------------------------------------------------------------

cdef void fields_copy(const facts_t *facts, const head_t *head, const char *base, uint64_t dropped,
                      uint32_t flags, span_t rules, bint request,
                      writer_t *writer) noexcept nogil:
    cdef const field_t *field
    cdef const char *name
    cdef uint32_t i, after, run = 0, run_end = 0
    for i in range(head.count):
        field = &head.fields[i]
        if dropped >> field.id & 1 or field.flags & flags:
            continue
        name = base + field.name
        if request and field.id == FIELD_OTHER:
            # "Proxy" would become HTTP_PROXY in the environment of a CGI program.
            if forwarded_stranger(facts, field) \
                    or same_name(name, field.name_size, b"proxy", 5, False):
                continue
        if rules.count and rule_takes(facts, rules, 0, name, field.name_size,
                                      field.flags & FIELD_UNDERSCORE):
            continue
        after = field.value + field.value_size
        if field.value == field.name + field.name_size + 2 \
                and name[field.name_size + 1] == c' ' and base[after] == c'\r':
            if field.name != run_end:
                put(writer, base + run, run_end - run)
                run = field.name
            run_end = after + 2
            continue
        put(writer, base + run, run_end - run)
        run = run_end = 0
        put(writer, name, field.name_size)
        put_text(writer, b": ")
        put(writer, base + field.value, field.value_size)
        put_text(writer, b"\r\n")
    put(writer, base + run, run_end - run)
