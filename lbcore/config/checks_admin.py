"""What is wrong or doubtful about ``[admin]``: who reaches the address controls lbcore."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from lbcore.config import files
from lbcore.config.findings import Finding
from lbcore.config.models import Admin
from lbcore.config.values import BadValue, parse_bind

LISTEN = ("admin", "listen")
TOKEN = ("admin", "token_file")


def errors(admin: Admin) -> Iterator[Finding]:
    """An address that others reach without a token, and a token that cannot be relied on."""
    if admin.listen and admin.token_file is None and not _is_local(admin.listen):
        yield Finding(
            LISTEN,
            "other machines can reach this address, and whoever does controls lbcore",
            'token_file = "/etc/lbcore/token", or a unix socket, or "127.0.0.1:PORT"',
            needs=(TOKEN,),
        )
    if admin.token_file is not None:
        try:
            files.token(admin.token_file)
        except BadValue as bad:
            yield Finding(TOKEN, bad.message, bad.hint)


def warnings(admin: Admin) -> Iterator[Finding]:
    """What works, and is probably not what was meant, or is dangerous."""
    if admin.token_file is not None:
        if not admin.listen or parse_bind(admin.listen).path:
            yield Finding(
                TOKEN,
                "this has no effect: a unix socket is protected by its permissions",
                'remove it, or listen = "127.0.0.1:9900"',
                needs=(LISTEN,),
                code="no-effect",
            )
        elif len(files.token(admin.token_file)) < files.LEAST_TOKEN:
            yield Finding(
                TOKEN,
                f"the token has less than {files.LEAST_TOKEN} characters: it can be guessed",
                "openssl rand -hex 32",
                code="weak-token",
            )
    if admin.listen and not _is_local(admin.listen):
        yield Finding(
            LISTEN,
            "other machines can reach this address, and the token goes there in the clear",
            '"127.0.0.1:9900" and `ssh -L 9900:127.0.0.1:9900 SERVER`, or the address of a network '
            "that is yours alone",
            code="open-admin",
        )


def _is_local(text: str) -> bool:
    address = parse_bind(text)
    return bool(address.path) or ip_address(address.host).is_loopback
