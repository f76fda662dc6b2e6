"""What a check of several keys finds, and the words to say it with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from lbcore.config.problems import KeyPath


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or dangerous, with the key at ``path``."""

    path: KeyPath
    message: str
    hint: str = ""
    see: KeyPath = ()                    # a key whose line belongs into the message
    needs: tuple[KeyPath, ...] = ()      # keys that it depends on, with all that is in them


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word closest to one that is not, or "" when none resembles it."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), "")


def choices(words: Iterable[str]) -> str:
    """Words as a person lists them: ``"a", "b" or "c"``."""
    quoted = [f'"{word}"' for word in words]
    return " or ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]])) if quoted else ""
