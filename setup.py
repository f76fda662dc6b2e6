"""Build of the compiled rooms; everything else about the package is in pyproject.toml.

LBCORE_SANITIZE=1 builds them for AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

SANITIZE = os.environ.get("LBCORE_SANITIZE") == "1"

compile_args = ["-O2", "-g", "-fno-plt", "-Wall", "-Wno-unused-function", "-Wno-sign-compare", "-D_GNU_SOURCE"]
link_args: list[str] = []
if SANITIZE:
    compile_args = [
        "-O1", "-g", "-D_GNU_SOURCE", "-fno-omit-frame-pointer",
        "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
    ]
    link_args = ["-fsanitize=address,undefined"]

MODULES = ["_scoreboard", "_plan", "_tables", "_balance", "_proxy", "_timers",
           "_relay", "_session", "_fastpath"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"lbcore.{name}",
                [f"lbcore/{name}.pyx"],
                extra_compile_args=compile_args,
                extra_link_args=link_args,
            )
            for name in MODULES
            if os.path.exists(f"lbcore/{name}.pyx")
        ],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
        },
    ),
)
