"""What is wrong with a configuration, told to the person who can change it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to change: where it is, what is wrong, and what to try."""

    file: str
    line: int        # 1-based; 0 when the problem has no line, such as a missing file
    key: str         # dotted path, such as ``pool.web.backends[2].weight``; "" for the file itself
    message: str
    hint: str = ""
    code: str = ""   # of a warning that can be accepted

    def __str__(self) -> str:
        return "".join(self.parts())

    def parts(self) -> tuple[str, str]:
        """The problem in one line, cut behind its place: ``FILE:LINE:`` and the rest."""
        where = f"{self.file}:{self.line}:" if self.line else f"{self.file}:"
        key = f" {self.key}:" if self.key else ""
        hint = f" Hint: {self.hint}" if self.hint else ""
        code = f" [{self.code}]" if self.code else ""
        return where, f"{key} {sentence(self.message)}{hint and sentence(hint)}{code}"

    def as_dict(self) -> dict[str, str | int]:
        """The problem as JSON shows it."""
        return {name: value for name, value in asdict(self).items() if value or name != "code"}


class ConfigError(Exception):
    """A configuration that cannot be used; ``problems`` holds everything wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def sentence(text: str) -> str:
    """The text with a full stop, unless it ends a sentence already."""
    return text if text.endswith((".", "?", "!")) else text + "."


def key_text(path: KeyPath) -> str:
    """A key path as people write it: ``("listener", 0, "bind")`` is ``listener[0].bind``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part and all(c.isalnum() or c in "_-" for c in part):
            text += f".{part}" if text else part
        else:
            quoted = '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f".{quoted}" if text else quoted
    return text
