"""``lbcore openapi``: the document of the admin API, for tools that read such documents."""

from __future__ import annotations

import json

import click


@click.command()
def openapi() -> None:
    """Print the OpenAPI document of the admin API.

    A running instance serves the same at /v1/openapi.json.
    """
    from lbcore.admin.openapi import document  # noqa: PLC0415

    click.echo(json.dumps(document(), indent=2))
