"""The compiled tools of the comparison, built when they are first needed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from .procs import HarnessError

BUILD = Path(__file__).parents[2] / "build" / "compare"


def compiled(name: str) -> Any:
    """The module ``loadtests.compare.NAME``, built by pyximport when its ``.pyx`` has changed.

    Raises HarnessError when it cannot be built.
    """
    pyximport = importlib.import_module("pyximport")
    hooks = pyximport.install(build_dir=str(BUILD), language_level=3)
    try:
        return importlib.import_module(f"loadtests.compare.{name}")
    except ImportError as error:
        raise HarnessError(f"{name}.pyx could not be built: {error}") from error
    finally:
        pyximport.uninstall(*hooks)
