"""Runs what a page of the documentation shows, from top to bottom, in a directory of its own.

What the page says of the machine is put elsewhere: ports that it names become free ones, absolute
directories such as /etc/lbcore lie below the test's directory, and every address is loopback. An
lb.toml without ``[admin]`` gets an admin address of its own, so that nothing meets an lbcore that
runs on the machine already.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.instance import free_port
from tests.support.pages import ROOT, Block, Command

PATIENCE = 60.0
MARK = "LBCORE_TEST_PAGE"
ADDRESS = re.compile(
    r"(?:127(?:\.\d+){3}|localhost|0\.0\.0\.0|\[::1?\]|\*):(\d{2,5})\b|--port[ =](\d+)"
    r"|\blisten (\d+)|\"(?:web|tcp)?:(\d{4,5})\"")
ELSEWHERE = re.compile(
    r"(?<![\w./-])/(?:etc/lbcore|srv|var/log|var/lib/lbcore|run/lbcore)(?![\w-])")
AT_THE_END = " (at the end)"      # such a title: the block is appended to the file
PROGRAMS = re.compile(r"(?<![\w./-])(?:/opt/lbcore|\.venv)/bin/")
FOREIGN = re.compile(r"\b(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}:\d+")


class PageFailed(Exception):
    """What a page says is not so; the message has what was said instead."""


class Page:
    """A page being run. See :func:`page`."""

    def __init__(self, blocks: list[Block]) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="lbcore-page-"))
        self.here = self.root / "here"
        self.mark = secrets.token_hex(8)
        self._served: list[subprocess.Popen[bytes]] = []
        shown = "\n".join([block.text + " ".join(block.directives.values()) for block in blocks])
        named = {next(group for group in found.groups() if group)
                 for found in ADDRESS.finditer(shown)}
        named.add("9900")       # in conf/lb.toml, which pages copy
        free: set[int] = set()
        while len(free) < len(named):
            free.add(free_port())
        # In the same order, because pages sort what mentions them.
        self.ports = dict(zip(sorted(named, key=int), sorted(free), strict=True))
        for directory in ("here", "etc/lbcore", "srv", "var/log/lbcore",
                          "var/log/nginx", "run/lbcore", "tmp"):
            (self.root / directory).mkdir(parents=True)
        self._cwd = self.here

    def translated(self, text: str) -> str:
        """The text with this run's ports and directories."""
        for port, own in self.ports.items():
            before = r"(?<![\d.])" if len(port) > 3 else r"(?:(?<=[\w\]*.]:)|(?<=listen ))"
            text = re.sub(rf"{before}{port}(?!\d)", str(own), text)
        text = text.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
        text = ELSEWHERE.sub(lambda found: f"{self.root}{found[0]}", text)
        return PROGRAMS.sub(f"{Path(sys.executable).parent}/", text)

    # -- what a block may be

    def run(self, block: Block) -> None:
        """Does what a block says. Raises ``PageFailed``."""
        if "long" in block.directives:
            for command in block.commands():
                self._look(block, command)
        if block.skipped:
            return
        if block.kind == "file":
            self._write(block)
        elif block.kind == "files":
            for name in block.text.split():
                self._copy(ROOT / name, self.here / name)
        elif block.kind == "setup":
            self._call(block, Command(block.line, block.text), 0)
        elif block.kind == "end":
            self.end()
        elif block.kind == "serve":
            port, _, words = block.text.partition(" ")
            self._serve(block, Command(block.line, words), port)
        elif block.kind == "kill":
            self._kill(self.translated(block.text))
        elif block.kind == "console":
            self._console(block)

    def _console(self, block: Block) -> None:
        commands = block.commands()
        if "instead" in block.directives:
            commands[-1].text = block.directives["instead"]
        code = int(block.directives.get("fails", "0"))
        for command in commands[:-1]:
            self._call(block, command, 0)
        last = commands[-1]
        if "serves" in block.directives:
            self._serve(block, last, block.directives["serves"])
        elif "eventually" in block.directives:
            self._repeat(block, last, code)
        else:
            self._call(block, last, code)

    def _look(self, block: Block, command: Command) -> None:
        """Whether a command that takes too long could be run: there is one, with these options."""
        words = shlex.split(command.text, comments=True)
        if words[0] == "make":
            dry = shlex.join(["make", "-C", str(ROOT), "-n", *words[1:]])
            self._call(block, Command(command.line, f"{dry} >/dev/null"), 0)
            return
        if Path(words[0]).name not in ("python", "pytest") or words[1] != "-m":
            raise PageFailed(f"{block.where}: only make and python -m can be looked at")
        code, said = self._once(Command(command.line, f"python -m {words[2]} --help"))
        lacking = [word for word in words[3:]
                   if word.startswith("--") and word.partition("=")[0] not in said]
        if code or lacking:
            raise PageFailed(f"{block.where}: {command.text}: {lacking}\n{said}")

    def _write(self, block: Block) -> None:
        text = self._apart(block.title, self.translated(block.text))
        title = self.translated(block.title)
        name = title.removesuffix(AT_THE_END)
        place = self._cwd / name
        if name != title:
            text = place.read_text() + text
        if self.root not in place.parents:
            raise PageFailed(f"{block.where}: {block.title} lies outside")
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(place.name + ".new")
        fresh.write_text(text)
        fresh.rename(place)

    def _apart(self, name: str, text: str) -> str:
        """A configuration with an admin address of this page; any other file as it is."""
        if name.endswith(".toml") and "[[listener]]" in text and "[admin]" not in text:
            text += f'\n[admin]\nlisten = "unix:{self.root}/run/lbcore/admin.sock"\n'
        return text

    def _copy(self, source: Path, place: Path) -> None:
        for path in [source] if source.is_file() else sorted(source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                to = place if source.is_file() else place / path.relative_to(source)
                to.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(UnicodeDecodeError):
                    to.write_text(self._apart(path.name, self.translated(path.read_text())))
                    to.chmod(path.stat().st_mode & 0o777)

    # -- commands

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items()
                if name in ("LANG", "LC_ALL", "LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS",
                            "LBCORE_UBSAN_LOG", "LBCORE_SANITIZE", "PYTHONMALLOC")}
        path = [str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin",
                "/usr/local/sbin", "/usr/sbin", "/sbin"]
        return kept | {
            MARK: self.mark, "PATH": ":".join(path), "HOME": str(self.root), "NO_COLOR": "1",
            "COLUMNS": "200", "TERM": "dumb", "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1", "XDG_RUNTIME_DIR": str(self.root / "run"),
            "TMPDIR": str(self.root / "tmp"), "SITE": str(self.root)}

    def _words(self, text: str) -> list[str]:
        script = re.sub(r"(?m)^sudo ", "", self.translated(text))
        keep = f"trap 'pwd > {self.root}/cwd' EXIT\n"
        return ["bash", "-c", f"cd {self._cwd} || exit\n{keep}{script}"]

    def _once(self, command: Command) -> tuple[int, str]:
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                self._words(command.text), env=self._environment(), stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                code = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                code = -1
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            said = output.read().decode(errors="replace")
        where = self.root / "cwd"
        if where.exists():
            self._cwd = Path(where.read_text().strip())
            where.unlink()
        return code, said

    def _call(self, block: Block, command: Command, code: int) -> None:
        ended, said = self._once(command)
        wrong = self._wrong(block, command, ended, said, code)
        if wrong:
            raise PageFailed(f"{wrong}\n{self._servers()}")

    def _repeat(self, block: Block, command: Command, code: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while wrong := self._wrong(block, command, *self._once(command), code):
            if time.monotonic() > deadline:
                raise PageFailed(f"{wrong}\n{self._servers()}")
            time.sleep(0.1)

    def _wrong(self, block: Block, command: Command, ended: int, said: str, code: int) -> str:
        """What is not as the page says, or nothing."""
        place = f"{block.page.relative_to(ROOT)}:{command.line}: {command.text}"
        if ended != code:
            return f"{place}\nended with {ended} instead of {code}, and said:\n{said}"
        rest = [" ".join(line.split()) for line in said.splitlines()]
        for wanted in command.output:
            text = " ".join(self.translated(wanted).split())
            if text in ("", "..."):
                continue
            shape = pattern(text, "figures" in block.directives)
            for index, line in enumerate(rest):
                if shape.fullmatch(line):
                    rest = rest[index + 1:]
                    break
            else:
                return f"{place}\nshould have said\n{text}\nand said:\n{said}"
        return ""

    # -- what goes on running

    def _serve(self, block: Block, command: Command, ports: str) -> None:
        configured = [path for path in self.here.rglob("lb*.toml")
                      if path.name in command.text
                      and FOREIGN.search(re.sub(r"(?m)#.*$", "", path.read_text()))]
        if configured:
            raise PageFailed(f"{block.where}: {configured[0]} has addresses beyond loopback")
        text = command.text.partition("  #")[0].rstrip().removesuffix("&")
        with (self.root / f"output-{len(self._served)}").open("wb") as output:
            process = subprocess.Popen(
                self._words(text if "\n" in text else f"exec {text}"), env=self._environment(),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True)
        self._served.append(process)
        deadline = time.monotonic() + PATIENCE
        for name in ports.split():
            while not listens(self.ports.get(name, int(name))):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise PageFailed(f"{block.where}: {command.text}\nnobody listens on {name}\n"
                                     f"{self._servers()}")
                time.sleep(0.02)

    def _servers(self) -> str:
        """What those that were started have said at last."""
        found = []
        for number, process in enumerate(self._served):
            said = (self.root / f"output-{number}").read_text(errors="replace").splitlines()[-15:]
            state = "runs" if process.poll() is None else f"ended with {process.returncode}"
            found.append(f"-- server {number} {state}:\n" + "\n".join(said))
        return "\n".join(found)

    def _kill(self, words: str) -> None:
        """Ends what the page has started with these words in its command."""
        pids = [pid for pid in self._processes()
                if words in (Path(f"/proc/{pid}/cmdline").read_bytes()
                             .replace(b"\0", b" ").decode(errors="replace"))]
        if not pids:
            raise PageFailed(f"nothing runs that is called {words!r}\n{self._servers()}")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Ends what was started, in peace: the last one first."""
        for process in reversed(self._served):
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)

    def _processes(self) -> list[int]:
        """The living processes that the page has started, and those that they have."""
        mark = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    if (mark in (entry / "environ").read_bytes().split(b"\0")
                            and b"\nState:\tZ" not in (entry / "status").read_bytes()):
                        found.append(int(entry.name))
        return found

    def close(self) -> None:
        """Ends whatever the page has started, and removes its directory."""
        for process in self._served:
            # Also those that write over their environment, and so over the mark: nginx does.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.poll()
        deadline = time.monotonic() + PATIENCE
        while (left := self._processes()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self._served:
                process.poll()
            time.sleep(0.01)
        shutil.rmtree(self.root, ignore_errors=True)


def pattern(text: str, figures: bool) -> re.Pattern[str]:
    """What a line of output has to look like."""
    if figures:
        words = ["..." if re.search(r"\d", word) else word for word in text.split()]
        text = " ".join(words)
    return re.compile(".*".join(re.escape(part) for part in text.split("...")))


def listens(port: int) -> bool:
    """Whether somebody takes connections there, on either loopback address."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with contextlib.suppress(OSError), socket.socket(family) as sock:
            if sock.connect_ex((host, port)) == 0:
                return True
    return False


@contextlib.contextmanager
def page(blocks: list[Block]) -> Iterator[Page]:
    """A page that leaves nothing behind."""
    made = Page(blocks)
    try:
        yield made
    finally:
        made.close()
