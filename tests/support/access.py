"""Lines of the access log, as they come out of a pipe or a file."""

from __future__ import annotations

import os
from typing import Any

from lbcore._access import AccessFormat, AccessLog


def line_of(record: dict[str, Any], form: AccessFormat, *, file: bool = False) -> bytes:
    """The line of a record without its end; in a file lines may be long."""
    if file:
        reader = os.memfd_create("log")
        writer = os.dup(reader)
    else:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
    log = AccessLog(writer, form)
    log.line(record)
    log.close()
    with os.fdopen(reader, "rb") as lines:
        text = os.pread(reader, 1 << 20, 0) if file else lines.read()
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    return text[:-1]
