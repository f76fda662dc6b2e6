"""The JSON Schema of lb.toml, for editors that complete and check TOML (taplo and others)."""

from __future__ import annotations

from typing import Any

from lbcore.config.models import Config

DIALECT = "http://json-schema.org/draft-07/schema#"      # what taplo understands


def json_schema() -> dict[str, Any]:
    """The schema, with a description, default and unit (``x-unit``) for every key."""
    schema = _tidy(Config.model_json_schema(ref_template="#/definitions/{model}"))
    definitions = schema.pop("$defs")
    return {
        "$schema": DIALECT,
        **schema,
        "title": "lb.toml, the configuration of lbcore",
        "definitions": definitions,
    }


def _tidy(node: Any) -> Any:
    """A schema without what is true in pydantic only.

    TOML has no null, so a key that may be absent has neither that type nor that default; titles
    made of the key's own name say nothing.
    """
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy = {
        name: _tidy(item)
        for name, item in node.items()
        if not (name == "title" and isinstance(item, str))
        and not (name == "default" and item is None)
    }
    if "patternProperties" in tidy:     # names that match none are as bad as unknown keys
        tidy["additionalProperties"] = False
    kinds = tidy.get("anyOf")
    if isinstance(kinds, list) and {"type": "null"} in kinds:
        rest = [kind for kind in kinds if kind != {"type": "null"}]
        del tidy["anyOf"]
        if len(rest) > 1:
            tidy["anyOf"] = rest
        else:
            tidy |= {"allOf": rest} if "$ref" in rest[0] else rest[0]
    if "$ref" in tidy and len(tidy) > 1:     # draft 7 ignores what stands beside a $ref
        tidy["allOf"] = [{"$ref": tidy.pop("$ref")}]
    return tidy
