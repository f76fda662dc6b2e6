"""Build of the compiled rooms; everything else about the package is in pyproject.toml.

These environment variables choose another build; each keeps its objects apart from the others':

LBCORE_PROFILE=1     symbols and frame pointers, for `perf record -g` (`make profile`)
LBCORE_SANITIZE=1    AddressSanitizer and UndefinedBehaviorSanitizer (`make test-asan`)
LBCORE_SKIP_BUILD=1  no compiled module: `make` installs the command first and builds in the tree
"""

import multiprocessing
import os
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def chosen(name: str) -> bool:
    return os.environ.get(name) == "1"


class BuildExt(build_ext):
    """Puts the modules of this build into the tree, whichever build's lie there.

    Cython runs when something is compiled, and not when a tool asks for the name and the version of
    this package or for a source distribution: it took as long as a third of compiling.
    """

    def build_extensions(self) -> None:
        from Cython.Build import cythonize  # noqa: PLC0415

        for ext, made in zip(self.extensions, cythonize(
                self.extensions, nthreads=TRANSLATORS, compiler_directives=DIRECTIVES),
                strict=True):
            ext.sources = made.sources
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        made = Path(self.get_ext_fullpath(ext.name))
        if not self.inplace:
            made = Path(self.build_lib) / Path(*ext.name.split(".")).parent / made.name
        if made.exists() and made.stat().st_size == 0:
            made.unlink()       # of a build that was killed: new enough, and empty
        super().build_extension(ext)

    def copy_extensions_to_source(self) -> None:
        force, self.force = self.force, True    # without, a newer module of another build stays
        super().copy_extensions_to_source()
        self.force = force


# -O2: a request is nearly all system calls, and -O3 only grew the code.
# -fwrapv is Python's own; said again so that every Python builds the same arithmetic.
COMPILE = ["-O2", "-fwrapv", "-fvisibility=hidden", "-fno-plt", "-D_GNU_SOURCE",
           "-Wall", "-Wextra", "-Wno-unused-function", "-Wno-unused-parameter",
           "-Wno-unused-const-variable",
           "-Wno-sign-compare", "-Wno-missing-field-initializers", "-Wno-cast-function-type",
           "-Wno-unused-result"]
# What parses bytes from the network keeps the hardening that distributions build with.
HARDEN = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
LINK = ["-Wl,-z,relro,-z,now"]
# What a module needs beyond the C library, by its name.
LIBRARIES = {"_auth": ["crypt"], "_expressions": ["pcre2-8"]}
PLAIN = ["-g0"]
PROFILE = ["-g", "-fno-omit-frame-pointer"]
SANITIZE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all"]

if chosen("LBCORE_SANITIZE"):
    # Fortified functions are not the ones that the sanitizer watches.
    compile_args, link_args = [*COMPILE, *SANITIZE], ["-fsanitize=address,undefined"]
    build_base = "build/sanitize"
elif chosen("LBCORE_PROFILE"):
    compile_args, link_args, build_base = [*COMPILE, *HARDEN, *PROFILE], LINK, "build/profile"
else:
    compile_args, link_args, build_base = [*COMPILE, *HARDEN, *PLAIN], LINK, "build"

extensions = [
    Extension(
        f"lbcore.{source.stem}",
        [str(source)],
        depends=["setup.py"],
        libraries=LIBRARIES.get(source.stem, []),
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )
    for source in sorted(Path("lbcore").glob("_*.pyx"))
]

CPUS = len(os.sched_getaffinity(0))
# A process that is not forked would run this file again.
TRANSLATORS = CPUS if multiprocessing.get_start_method() == "fork" else 0

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": True,
}

setup(
    ext_modules=[] if chosen("LBCORE_SKIP_BUILD") else extensions,
    cmdclass={"build_ext": BuildExt},
    options={
        "build": {"build_base": build_base},
        "build_ext": {"parallel": CPUS},
    },
)
