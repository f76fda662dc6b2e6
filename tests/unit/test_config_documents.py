"""What is generated from the models, and the example files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lbcore.config import dangers, load_file, to_plan
from lbcore.config.explain import model_at
from lbcore.config.reference import render
from lbcore.config.schema import json_schema
from lbcore.config.show import effective
from lbcore.supervisor.supervisor import invitation

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "conf").glob("*.toml"))


def keys() -> list[tuple[str, str, dict[str, Any]]]:
    schema = json_schema()
    tables = {"Config": schema, **schema["definitions"]}
    return [
        (table, name, about)
        for table, content in tables.items()
        for name, about in content["properties"].items()
    ]


def valid(document: object) -> bool:
    return bool(jsonschema.Draft7Validator(json_schema()).is_valid(document))


@pytest.mark.parametrize(("table", "name", "about"), keys())
def test_every_key_has_a_meaning_a_unit_and_a_type(
    table: str, name: str, about: dict[str, Any]
) -> None:
    assert about["description"].endswith(".")
    assert about["x-unit"]
    assert {"type", "anyOf", "allOf", "$ref", "const", "enum"} & about.keys()
    assert "null" not in str(about)


def test_the_reference_in_docs_is_current() -> None:
    committed = (ROOT / "docs" / "reference.md").read_text()
    assert committed == render(), "python -m lbcore.config.reference > docs/reference.md"


@pytest.mark.parametrize(("table", "name", "about"), keys())
def test_the_reference_has_every_key(table: str, name: str, about: dict[str, Any]) -> None:
    assert table == "Config" or f"| `{name}` |" in render()


def test_there_are_examples() -> None:
    assert {path.name for path in EXAMPLES} >= {
        "lb.toml", "tcp.toml", "http.toml", "databases.toml"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_good_without_warnings(path: Path) -> None:
    loaded = load_file(path)
    assert [*loaded.warnings, *dangers.warnings(loaded)] == []
    assert to_plan(loaded.config).listeners


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_schema_accepts_examples_and_their_effective_form(path: Path) -> None:
    assert valid(tomllib.loads(path.read_text()))
    assert valid(effective(load_file(path).config))


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft7Validator.check_schema(json_schema())


@pytest.mark.parametrize(
    "document",
    [
        {"lbcore": {"workers": 0}},
        {"lbcore": {"usr": "x"}},
        {"lbcore": {"drain_timeout": 5}},
        {"lbcore": {"drain_timeout": "5"}},
        {"listener": [{"name": "a", "bind": "127.0.0.1:1"}]},
        {"pool": {"a": {"balance": "fair"}}},
        {"pool": {"a": {"backends": [1]}}},
        {"pool": {"a b": {"demo": 1}}},
        {"pool": {"a": {"source": None}}},
    ],
)
def test_the_schema_refuses_what_lbcore_refuses(document: object) -> None:
    assert not valid(document)


def test_the_embedded_default_needs_nothing_but_loopback() -> None:
    plan = to_plan(load_file(ROOT / "conf" / "lb.toml").config)
    assert [str(bind) for listener in plan.listeners for bind in listener.binds] == [
        "127.0.0.1:8080"
    ]
    (pool,) = plan.pools
    assert (pool.name, pool.backends) == ("web", ())
    assert pool.app is not None
    assert (pool.app.kind, pool.app.app) == ("wsgi", "hello:application")
    assert invitation(plan) == ["try:  curl http://127.0.0.1:8080/", "see:  http://127.0.0.1:9900/"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ((), "Config"),
        (("lbcore",), "Process"),
        (("listener", 0), "Listener"),
        (("pool", "a"), "Pool"),
        (("pool", "a", "health"), "Health"),
        (("pool", "a", "ejection"), "Ejection"),
        (("pool", "a", "backends", 1), "Backend"),
    ],
)
def test_the_model_of_every_table_is_found_by_its_path(
    path: tuple[str | int, ...], name: str
) -> None:
    model = model_at(path)
    assert model is not None
    assert model.__name__ == name


@pytest.mark.parametrize("path", [("pool",), ("listener",), ("x",), ("lbcore", "workers")])
def test_what_is_no_table_has_no_model(path: tuple[str | int, ...]) -> None:
    assert model_at(path) is None
