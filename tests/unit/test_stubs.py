"""What editors and mypy are told of the compiled modules is what the modules have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILED = sorted(f"lbcore.{source.stem}" for source in (ROOT / "lbcore").glob("_*.pyx"))
OF_THE_SUPERVISOR = {"lbcore._figures"}         # workers have no use for it
DOORS = sorted(f"lbcore.{stub.stem}" for stub in (ROOT / "lbcore").glob("_*.pyi"))

# Cython's own, in every module and class.
CYTHONS = r"""
.*\.__pyx_capi__
.*\.__test__
.*\.__(reduce|setstate)_cython__
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=110,
        check=False,
    )


def test_stubs_name_what_the_modules_have(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(CYTHONS)
    found = python(
        "-m", "mypy.stubtest", *DOORS, "--allowlist", str(allowed), "--ignore-unused-allowlist",
        "--ignore-disjoint-bases", "--mypy-config-file", "pyproject.toml",
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_compiled_module_with_a_python_door_has_a_stub() -> None:
    look = (
        "import importlib, sys, types\n"
        "for name in sys.argv[1:]:\n"
        "    own = [n for n, v in vars(importlib.import_module(name)).items()\n"
        "           if n[0] != '_' and not isinstance(v, types.ModuleType)]\n"
        "    if own: print(name)\n"
    )
    found = python("-c", look, *COMPILED)
    assert found.stdout.split() == DOORS, found.stderr


@pytest.mark.parametrize("module", COMPILED)
def test_a_compiled_module_imports_compiled_ones_and_the_standard_library_only(
    module: str,
) -> None:
    look = (
        "import importlib, sys\n"
        "before = set(sys.modules)\n"
        "importlib.import_module(sys.argv[1])\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    found = python("-c", look, module)
    assert found.returncode == 0, found.stderr
    allowed = {"lbcore", "cython_runtime", *COMPILED}
    strangers = [
        name for name in found.stdout.split()
        if name not in allowed
        and name.partition(".")[0] not in sys.stdlib_module_names
        and not name.startswith("_cython_")
    ]
    assert strangers == []


def test_a_worker_imports_no_more_than_that() -> None:
    look = "import sys, lbcore.worker; print(*sorted(sys.modules))"
    loaded = python("-c", look).stdout.split()
    assert [name for name in loaded if name.startswith("lbcore.")] == sorted(
        ["lbcore.worker", *(name for name in COMPILED if name not in OF_THE_SUPERVISOR)]
    )
    heavy = {"aiohttp", "asyncio", "click", "prometheus_client", "psutil", "pydantic", "rich",
             "textual", "toml"}
    assert heavy.isdisjoint(loaded)
