"""Files that a configuration names, which lbcore reads when it is loaded: pages, users, tokens.

Workers get their contents with the plan: they never open them, and may not be allowed to.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lbcore.config.http_values import format_size, parse_password_hash, parse_user
from lbcore.config.plan import PagePlan
from lbcore.config.values import BadValue

MAX_PAGE = 2**20
MAX_USERS = 2**22
MAX_TOKEN = 4096
LEAST_TOKEN = 16                 # characters below which a token can be guessed
KINDS = {".txt": "text", ".html": "html", ".htm": "html", ".json": "json"}
TYPES = {
    "text": "text/plain; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
}


def read(path: str, most: int = MAX_PAGE) -> bytes:
    """What is in a file. Raises BadValue."""
    try:
        # A pipe without a writer would wait for ever, and who reloads waits on the event loop.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise BadValue(f"{path} is not an ordinary file", "name a file")
            data = stream.read(most + 1)
    except OSError as error:
        hint = f"it must be readable for user {os.geteuid()}" if isinstance(
            error, PermissionError) else ""
        raise BadValue(f"{path} cannot be read: {error.strerror}", hint) from None
    if len(data) > most:
        raise BadValue(f"{path} is too large", f"at most {format_size(most)}")
    return data


def page(status: int, path: str) -> PagePlan:
    """An error page; its kind follows from the ending of its name. Raises BadValue."""
    match KINDS.get(Path(path).suffix.lower()):
        case "text" | "html" | "json" as kind:
            return PagePlan(status, kind, read(path))
        case _:
            raise BadValue(f"{path} is none of the kinds there are", ".html, .txt or .json")


def media_type(path: str) -> str:
    """The Content-Type of a file, by the ending of its name."""
    # Our own few, so that the answer does not depend on this machine's /etc/mime.types.
    suffix = Path(path).suffix.lower()
    if suffix in KINDS:
        return TYPES[KINDS[suffix]]
    return {
        ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif",
        ".webp": "image/webp", ".ico": "image/x-icon", ".xml": "application/xml",
        ".pdf": "application/pdf", ".wasm": "application/wasm",
    }.get(suffix, "application/octet-stream")


def users(path: str) -> dict[str, str]:
    """Users and their password hashes in a file as htpasswd writes them. Raises BadValue."""
    try:
        text = read(path, MAX_USERS).decode()
    except UnicodeDecodeError:
        raise BadValue(f"{path} is not text in UTF-8") from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, hashed = line.strip().partition(":")
        try:
            parse_user(name)
            parse_password_hash(hashed)
        except BadValue as bad:
            raise BadValue(f"line {number} of {path}: {bad.message}", bad.hint) from None
        if name in found:
            raise BadValue(f'line {number} of {path}: "{name}" is there twice', "remove one")
        found[name] = hashed
    return found


def token(path: str) -> str:
    """The token in the first line of a file. Raises BadValue.

    Nobody may have access to it but its owner, and its group for reading, as services have it whose
    secrets belong to root.
    """
    make = f"(umask 077; openssl rand -hex 32 > {path})"
    text = read(path, MAX_TOKEN)
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    if mode & 0o037:
        raise BadValue(f"{path} can be read or changed by other users (mode {mode:04o})",
                       f"chmod {mode & 0o740:03o} {path}")
    try:
        found = (text.splitlines() or [b""])[0].strip().decode("ascii")
    except UnicodeDecodeError:
        found = " "
    if not found:
        raise BadValue(f"the first line of {path} is empty", make)
    if not found.isprintable() or " " in found:
        raise BadValue(f"the first line of {path} is no token",
                       f"letters, digits and -._~+/=, no blanks; for example {make}")
    return found
