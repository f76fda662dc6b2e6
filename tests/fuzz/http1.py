"""The fuzz target of the HTTP/1.1 parser, for scripts/fuzz: libFuzzer makes the bytes, guided by
what they reach in the compiled parser; the claims in tests/support/http1.py say what is wrong."""

from __future__ import annotations

import sys

import atheris

from tests.support.http1 import all_claims, cuts_of


def one(data: bytes) -> None:
    all_claims(data, cuts_of(data))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
