"""What a source may say of a pool's backends, and what it means: tables as in lb.toml.

One shape for all sources, because people move from a file to a callable and back:

    ["10.0.0.1:8000", "10.0.0.2:8000"]                       addresses
    [("10.0.0.1", 8000)]                                     pairs, from callables
    [{"address": "10.0.0.1:8000", "weight": 2}]              tables as in lb.toml
    {"backends": [...]}                                      any of these, with a name
    [{"targets": ["10.0.0.1:8000"], "labels": {...}}]        what Prometheus reads (file_sd)

Whether addresses and keys are good is for the configuration to say: what comes out of here is put
through the same checks as a file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Table = dict[str, Any]

MOST = 16_384                # backends, as lbcore can count
LARGEST = 16 << 20           # bytes of a file or an answer
LABELS = {                   # of Prometheus targets, and the key that each is
    "lbcore_name": "name", "lbcore_weight": "weight", "lbcore_backup": "backup",
    "lbcore_max_connections": "max_connections",
}
EMPTY = "it names no backend, and a pool is never left without any"


class BadAnswer(ValueError):
    """What a source said is no set of backends; the text says why."""


def backends_of(answer: object) -> list[Table]:
    """The tables of an answer: without repetitions, and sets in the order of their addresses.

    Raises BadAnswer, also for an empty answer.
    """
    if isinstance(answer, Mapping):
        if set(answer) != {"backends"}:
            raise BadAnswer('a table is {"backends": [...]}; this one has '
                            f"{', '.join(map(repr, list(answer)[:5])) or 'no key'}")
        answer = answer["backends"]
    if isinstance(answer, str | bytes) or not isinstance(answer, Iterable):
        raise BadAnswer(f"a list of backends was expected, not {_shown(answer)}")
    items = list(_some(answer))
    if isinstance(answer, set | frozenset):
        items.sort(key=str)
    try:
        # By what they say in JSON, which is also how they travel.
        tables = _some(table for item in items for table in _tables(item))
        found = list({json.dumps(table, sort_keys=True): table for table in tables}.values())
    except (TypeError, RecursionError) as error:
        raise BadAnswer(f"the keys of a backend are text, numbers and switches: {error}") from None
    if len(found) > MOST:
        raise BadAnswer(f"more than {MOST} backends")
    if not found:
        raise BadAnswer(EMPTY)
    return found


def read_file(path: str | Path) -> list[Table]:
    """The backends in a file: .json, .toml, or else text with an address on each line.

    A line may have more words: ``10.0.0.1:8000 weight=2 backup``. What is behind # is a comment.
    Raises BadAnswer or OSError.
    """
    path = Path(path)
    with path.open("rb") as stream:
        data = stream.read(LARGEST + 1)
    return parse_file(data, path.suffix)


def parse_file(data: bytes, suffix: str) -> list[Table]:
    """The backends in the content of a file with this suffix. Raises BadAnswer."""
    if len(data) > LARGEST:
        raise BadAnswer(f"the file is larger than {LARGEST >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadAnswer(f"the file is not text in UTF-8: {error.reason} at byte {error.start}"
                        ) from None
    if suffix == ".json":
        try:
            return backends_of(json.loads(text))
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadAnswer(f"the file is not JSON: {error}") from None
    if suffix == ".toml":
        try:
            return backends_of(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise BadAnswer(f"the file is not TOML: {error}") from None
    lines = [(number, line.partition("#")[0].split())
             for number, line in enumerate(text.splitlines(), 1)]
    return backends_of([_line(number, words) for number, words in lines if words])


def _line(number: int, words: list[str]) -> Table:
    table: Table = {"address": words[0]}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if key == "backup" and not equals:
            table[key] = True
        elif key == "name" and value:
            table[key] = value
        elif key in ("weight", "max_connections") and value.isascii() and value.isdecimal():
            table[key] = int(value)
        else:
            raise BadAnswer(f"line {number}: {word!r} is none of name=NAME, weight=N, "
                            f"max_connections=N, backup")
    return table


def _some(answer: Iterable[Any]) -> Iterable[Any]:
    """The items of an answer, but not of one without end."""
    for count, item in enumerate(answer):
        if count > MOST:
            raise BadAnswer(f"more than {MOST} backends")
        yield item


def _tables(item: object) -> Iterable[Table]:
    if isinstance(item, str):
        yield {"address": item}
    elif isinstance(item, tuple | list):
        yield {"address": _pair(item)}
    elif isinstance(item, Mapping) and "targets" in item:
        yield from _targets(item)
    elif isinstance(item, Mapping) and "address" in item:
        if not all(isinstance(key, str) for key in item):
            raise BadAnswer(f"the keys of a backend are words: {_shown(item)}")
        yield {str(key): value for key, value in item.items() if value is not None}
    else:
        raise BadAnswer("a backend is an address or a table with one, not " + _shown(item))


def _pair(item: tuple[Any, ...] | list[Any]) -> str:
    match item:
        case (str(host), int(port)) if not isinstance(port, bool):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise BadAnswer(f"a backend is an address or a table with one, not {_shown(item)}")


def _targets(item: Mapping[Any, Any]) -> Iterable[Table]:
    targets, labels = item["targets"], item.get("labels") or {}
    if not isinstance(targets, list | tuple) or not isinstance(labels, Mapping):
        raise BadAnswer(f"targets are a list and labels a table: {_shown(item)}")
    more: Table = {}
    for label, key in LABELS.items():
        if label in labels:
            more[key] = _label(key, str(labels[label]))
    for target in targets:
        if not isinstance(target, str):
            raise BadAnswer(f"a target is an address, not {_shown(target)}")
        yield {"address": target, **more}


def _label(key: str, value: str) -> object:
    if key in ("weight", "max_connections") and value.isascii() and value.isdecimal():
        return int(value)
    if key == "backup" and value in ("true", "false"):
        return value == "true"
    if key == "name":
        return value
    raise BadAnswer(f"the label lbcore_{key} cannot be {value!r}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
