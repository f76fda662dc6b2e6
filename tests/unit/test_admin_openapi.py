"""The document of the admin API: whole, valid, and the same wherever it comes from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from lbcore.admin.openapi import document
from lbcore.admin.operations import OPERATIONS
from lbcore.cli import cli

DOCUMENT = document()
SCHEMAS = DOCUMENT["components"]["schemas"]


def every(node: Any) -> Iterator[dict[str, Any]]:
    """All objects in a document."""
    if isinstance(node, dict):
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from every(part)


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["description"]


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    named = {one["$ref"] for one in every(DOCUMENT) if "$ref" in one}
    assert named <= {f"#/components/schemas/{name}" for name in SCHEMAS}
    # what stands in a stream only, which has no schema of its own
    assert {name for name in SCHEMAS if f"#/components/schemas/{name}" not in named} == {
        "Event", "StreamState"} - {path.rpartition("/")[2] for path in named}


def test_every_operation_is_there_once_and_says_what_can_happen() -> None:
    names = Counter(operation["operationId"] for path in DOCUMENT["paths"].values()
                    for operation in path.values())
    assert names == Counter(one.name for one in OPERATIONS)
    for path in DOCUMENT["paths"].values():
        for method, operation in path.items():
            answers = operation["responses"]
            assert operation["summary"] and all(one["description"] for one in answers.values())
            if method != "get":
                assert {"400", "401", "403", "412", "415"} <= set(answers), operation


def test_what_is_absent_from_a_change_has_no_default_that_a_tool_would_send() -> None:
    assert not [key for key, about in SCHEMAS["BackendPatch"]["properties"].items()
                if "default" in about]


@pytest.mark.parametrize(("token", "security"), [
    (True, [{"token": []}]), (False, []), (None, [{"token": []}, {}])])
def test_document_says_whether_a_token_is_asked_for(token: bool | None, security: Any) -> None:
    made = document(token)
    assert made["security"] == security
    assert made["paths"]["/healthz"]["get"]["security"] == []
    assert ("401" in made["paths"]["/v1/status"]["get"]["responses"]) is (token is not False)


def test_command_prints_it() -> None:
    assert json.loads(CliRunner().invoke(cli, ["openapi"]).output) == DOCUMENT
