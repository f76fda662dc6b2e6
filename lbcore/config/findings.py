"""What a check of several keys finds, and the words to say it with."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lbcore.config.problems import KeyPath, Problem

# What works, and is dangerous or probably not what was meant, and why. `accept_warnings` in
# [lbcore] takes these.
WARNINGS = {
    "no-health-check": "Nobody asks the backends of a pool whether they work: each failure is "
    "found by a client.",
    "single-backend": "A pool has one backend: when it fails, so does everything that goes there.",
    "demo-backends": "Demonstration servers answer clients beside real backends.",
    "short-drain": "drain_timeout cuts requests that a route allows to take longer.",
    "no-drain": "Every stop, upgrade and lost worker breaks connections off.",
    "unlimited-body": "One request may fill the disk that bodies are kept on.",
    "timeout-off": "A connection whose other end is gone, or does nothing, is kept for ever.",
    "unsafe-retry": "A request that changes something may be carried out twice.",
    "trusts-everybody": "Every client can claim to be any other.",
    "descriptor-limit": "The system allows fewer connections than are configured.",
    "writable-by-others": "Every user of this machine can change what lbcore does or says.",
    "readable-by-others": "Every user of this machine can read a secret.",
    "root-without-user": "Who breaks into a worker is root.",
    "app-as-root": "Who breaks into an application is root.",
    "weak-hash": "Who gets hold of a password's hash has the password.",
    "weak-token": "The token of the admin address can be guessed.",
    "open-admin": "Whoever listens on the way to the admin address reads its token.",
    "unused-pool": "No listener sends anything to a pool.",
    "never-reached": "A pool gets nothing: routes take every request before.",
    "no-effect": "A key changes nothing here.",
    "no-directory": "lbcore does not start: a log or its pid file has no directory.",
    "long-attempt": "One attempt to connect may take longer than all of them together.",
    "slow-checks": "Checks are slower while a backend changes state than at other times.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or dangerous, with the key at ``path``."""

    path: KeyPath
    message: str
    hint: str = ""
    see: KeyPath = ()                    # a key whose line belongs into the message
    needs: tuple[KeyPath, ...] = ()      # keys that it depends on, with all that is in them
    code: str = ""                       # of a warning: one of WARNINGS, to accept it by


def unaccepted(problems: Iterable[Problem], accepted: Collection[str]) -> list[Problem]:
    """The warnings that nobody has accepted, with ``CODE`` or with ``CODE:KEY``.

    KEY may be the key's own or that of a table around it.
    """
    def meant(problem: Problem) -> bool:
        for text in accepted:
            code, _, key = text.partition(":")
            if code == problem.code and (
                    key in ("", problem.key) or problem.key.startswith((f"{key}.", f"{key}["))):
                return True
        return False

    return [problem for problem in problems if not meant(problem)]


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word closest to one that is not, or "" when none resembles it."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), "")


def choices(words: Iterable[str]) -> str:
    """Words as a person lists them: ``"a", "b" or "c"``."""
    quoted = [f'"{word}"' for word in words]
    return " or ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]])) if quoted else ""
