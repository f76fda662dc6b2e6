"""The building blocks of the configuration language: what a key and a table are, and the types
of their values.

``models.py`` says which keys there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from lbcore.config import http_values, values
from lbcore.config.values import BadValue

MAX_COUNT = 2**31 - 1            # workers count in 32 bits

T = TypeVar("T")


def key(default: Any, description: str, unit: str, **limits: Any) -> Any:
    """A key of a table: its default (``...`` for none), meaning, unit and limits.

    ``unit`` is what a number counts, or what a string is: a name, an address, a path.
    """
    has_value = default is not ... and default is not None
    return Field(
        default,
        description=description,
        json_schema_extra={"x-unit": unit},
        validate_default=has_value,
        **limits,
    )


def reading(parse: Callable[[Any], T]) -> Callable[[Any], T]:
    """``parse`` with its ``BadValue`` turned into an error that pydantic collects."""

    def read(value: Any) -> T:
        try:
            return parse(value)
        except BadValue as bad:
            raise PydanticCustomError(
                "bad_value", "{message}", {"message": bad.message, "hint": bad.hint}
            ) from None

    return read


def as_written(parse: Callable[[str], object]) -> AfterValidator:
    """Keeps the string, once ``parse`` accepts it."""

    def keep(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(reading(keep))


class OrString:
    """Tells the JSON Schema that a single string stands for the whole value."""

    def __init__(self, description: str) -> None:
        self.description = description

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "description": self.description}, handler(core)]}


def absolute(text: str) -> str:
    """The text, if it is an absolute path. Raises BadValue."""
    if not text.startswith("/") or "\0" in text:
        raise BadValue(f'"{text}" is not an absolute path', "start it with /")
    return text


NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
Name = Annotated[str, StringConstraints(pattern=NAME)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]
duration_text = PlainSerializer(values.format_duration, return_type=str)
duration_schema = WithJsonSchema(
    {
        "type": "string",
        "pattern": r"^(0|[0-9]+(\.[0-9]+)?(ms|s|m|h|d))$",
        "examples": ["500ms", "2s", "5m"],
    }
)
size_text = PlainSerializer(http_values.format_size, return_type=str)
size_schema = WithJsonSchema(
    {
        "type": "string",
        "pattern": r"^(0|[0-9]+(\.[0-9]+)?\s*([KMGT]iB|[kMGT]?B))$",
        "examples": ["512B", "64KiB", "100MiB"],
    }
)
Duration = Annotated[
    int, BeforeValidator(reading(values.parse_duration)), duration_text, duration_schema
]
PositiveDuration = Annotated[
    int,
    BeforeValidator(reading(lambda value: values.parse_duration(value, least_ms=1))),
    duration_text,
    duration_schema,
]
Size = Annotated[
    int, BeforeValidator(reading(http_values.parse_size)), size_text, size_schema
]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Share = Annotated[float, Field(ge=0, le=1)]
BindText = Annotated[str, as_written(values.parse_listen)]
Mode = Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3}$")]
StatusRange = Annotated[
    tuple[int, int],
    BeforeValidator(reading(values.parse_status)),
    PlainSerializer(lambda pair: "-".join(map(str, dict.fromkeys(pair))), return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 100, "maximum": 599},
                {"type": "string", "pattern": r"^[1-5][0-9]{2}(\s*-\s*[1-5][0-9]{2})?$"},
            ]
        }
    ),
]


class Table(BaseModel):
    """What every table has in common: no unknown keys, no guessing between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)
