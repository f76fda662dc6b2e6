"""Bytes that the other side does not take yet are kept in order, in memory and then in a file."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbcore._spool import Spool

MIB = 1 << 20
SO_SNDBUFFORCE = 32         # Python's socket module does not name it


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def listening_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    ours.setblocking(False)
    return ours, theirs


def drain(spool: Spool, ours: socket.socket, theirs: socket.socket) -> bytes:
    """Everything in the spool, as it arrives."""
    got = bytearray()
    size = spool.owned["size"]
    result = "wait"
    while result != "done" or len(got) < size:
        if result != "done":
            result, _ = spool.send(ours.fileno())
        got += theirs.recv(MIB)
    return bytes(got)


def pattern(size: int) -> bytes:
    return b"".join(b"%07d\n" % n for n in range(size // 8 + 1))[:size]


def run(code: str, **environment: str) -> str:
    """What a process of its own prints: the directory of spool files is looked up once."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True,
        text=True, timeout=60, check=False, cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_empty_spool_owns_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    spool = Spool()
    nothing = {"size": 0, "in_memory": 0, "in_file": 0, "buffers": 0, "files": 0, "fd": 0}
    assert spool.owned == nothing
    assert spool.send(pair[0].fileno()) == ("done", 0)
    spool.put(pattern(3000), 4096)
    spool.put(pattern(5000), 4096)
    assert drain(spool, *pair) == pattern(3000) + pattern(5000)
    assert spool.owned == nothing


def test_memory_first_and_the_file_only_for_what_is_beyond_the_limit() -> None:
    spool = Spool()
    spool.put(b"a" * 4096, 4096)
    assert spool.owned["fd"] == 0
    spool.put(b"b", 4096)
    assert (spool.owned["in_memory"], spool.owned["in_file"]) == (4096, 1)


def test_nothing_goes_to_memory_while_something_is_in_the_file(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    spool = Spool()
    spool.put(b"aaa", 4)
    spool.put(b"bbb", 4)
    spool.put(b"c", 1000)
    assert (spool.owned["in_memory"], spool.owned["in_file"]) == (3, 4)
    assert drain(spool, *pair) == b"aaabbbc"
    spool.put(b"d", 4)
    assert spool.owned["in_memory"] == 1


@pytest.mark.parametrize("memory", [0, 100_000, 10 * MIB])
def test_ten_mebibytes_through_a_socket_come_out_as_they_went_in(memory: int) -> None:
    data = pattern(10 * MIB)
    spool = Spool()
    for at in range(0, len(data), 60_000):
        spool.put(data[at:at + 60_000], memory)
    ours, theirs = listening_pair()
    with ours, theirs:
        assert drain(spool, ours, theirs) == data
    assert spool.owned["buffers"] == spool.owned["fd"] == 0


def test_a_socket_that_is_not_read_ends_the_sending() -> None:
    spool = Spool()
    spool.put(bytes(10 * MIB), 0)
    ours, theirs = listening_pair()
    with ours, theirs:
        results = {spool.send(ours.fileno())[0] for _ in range(20)}
        assert results <= {"wait", "again"}
        assert spool.send(ours.fileno()) == ("wait", 0)


@pytest.mark.parametrize("memory", [0, 4 * MIB])
def test_one_call_sends_a_mebibyte_at_most(memory: int) -> None:
    spool = Spool()
    spool.put(bytes(3 * MIB // 2), memory)
    spool.put(bytes(3 * MIB // 2), memory)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        try:
            ours.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 64 * MIB)
        except PermissionError:
            pytest.skip("no socket buffer is large enough")
        said = [spool.send(ours.fileno()) for _ in range(3)]
        assert said == [("again", MIB), ("again", MIB), ("done", MIB)]


def test_a_replay_forgets_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    data = pattern(50_000)
    spool = Spool()
    for at in range(0, len(data), 7000):
        spool.put(data[at:at + 7000], 20_000)
    before = spool.owned
    for _ in range(3):
        got = bytearray()
        while len(got) < len(data):
            result, given = spool.replay(len(got), ours.fileno())
            assert given or result == "done"
            while given:
                chunk = theirs.recv(given)
                got += chunk
                given -= len(chunk)
        assert got == data
        assert spool.replay(len(data), ours.fileno()) == ("done", 0)
    assert spool.owned == before


@pytest.mark.parametrize("memory", [0, MIB])
def test_a_peer_that_is_gone_is_an_error_of_the_destination(
    memory: int, pair: tuple[socket.socket, socket.socket],
) -> None:
    spool = Spool()
    spool.put(bytes(1000), memory)
    pair[1].close()
    assert spool.send(pair[0].fileno()) == ("destination error", 0)


def test_a_file_cut_short_is_an_error_of_the_source(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    spool = Spool()
    spool.put(bytes(1000), 0)
    os.ftruncate(spool.owned["fd"], 10)
    assert spool.send(pair[0].fileno())[0] == "source error"


def test_a_dropped_spool_gives_everything_back() -> None:
    spool = Spool()
    spool.put(bytes(100_000), 200_000)
    spool.put(bytes(200_000), 200_000)
    fd = spool.owned["fd"]
    spool.drop()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    assert spool.owned["buffers"] == spool.owned["size"] == 0


def test_the_file_has_no_name_and_no_child_inherits_it() -> None:
    spool = Spool()
    spool.put(bytes(10), 0)
    fd = spool.owned["fd"]
    assert os.fstat(fd).st_nlink == 0
    assert os.fstat(fd).st_mode & 0o777 == 0o600
    assert not os.get_inheritable(fd)


def test_disk_that_was_read_is_given_back_while_more_comes() -> None:
    """A response that a client takes slowly but steadily may be larger than the disk."""
    spool = Spool()
    ours, theirs = listening_pair()
    with ours, theirs:
        for _ in range(12):
            spool.put(bytes(MIB), 0)
            while spool.owned["size"] > MIB:
                spool.send(ours.fileno())
                theirs.recv(MIB)
        assert os.fstat(spool.owned["fd"]).st_size > 10 * MIB
        assert os.fstat(spool.owned["fd"]).st_blocks * 512 <= 3 * MIB


def test_no_descriptor_for_the_file_leaves_the_spool_as_it_was() -> None:
    said = run(
        "import os, resource\n"
        "from lbcore._spool import Spool\n"
        "spool = Spool()\n"
        "spool.put(b'kept', 4)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "try: spool.put(b'x' * 100, 4)\n"
        "except OSError as error: print(error.errno, spool.owned)\n"
    )
    assert said.startswith(f"{errno.EMFILE} {{'size': 4, 'in_memory': 4, 'in_file': 0")


def test_a_put_that_finds_no_room_takes_nothing_in() -> None:
    """A limit on file sizes stops the write in its middle, as a full disk does."""
    said = run(
        "import resource, socket\n"
        "from lbcore._spool import Spool\n"
        "spool = Spool()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))\n"
        "try: spool.put(b'x' * 200, 0)\n"
        "except OSError as error: print(error.errno, spool.owned['fd'])\n"
        "spool.put(b'a' * 100, 0)\n"
        "try: spool.put(b'x' * 100, 0)\n"
        "except OSError as error: print(error.errno, spool.owned['size'])\n"
        "spool.put(b'b' * 50, 0)\n"
        "ours, theirs = socket.socketpair()\n"
        "print(spool.send(ours.fileno()), theirs.recv(200) == b'a' * 100 + b'b' * 50)\n"
    )
    assert said.splitlines() == [f"{errno.EFBIG} 0", f"{errno.EFBIG} 100", "('done', 150) True"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a filesystem in a namespace of its own")
def test_a_full_disk_is_told_apart(tmp_path: Path) -> None:
    code = (
        "import errno\n"
        "from lbcore._spool import Spool\n"
        "spool = Spool()\n"
        "spool.put(b'a' * 1000, 0)\n"
        "try: spool.put(bytes(1 << 20), 0)\n"
        "except OSError as error: print(errno.errorcode[error.errno], spool.owned['size'])\n"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c",
         'mount -t tmpfs -o size=64k none "$LBCORE_SPOOL_DIR" && exec "$0" -c "$1"',
         sys.executable, code],
        env={**os.environ, "LBCORE_SPOOL_DIR": str(tmp_path)}, capture_output=True, text=True,
        timeout=60, check=False, cwd=Path(__file__).parents[2],
    )
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    assert done.stdout.strip() == "ENOSPC 1000", done.stderr


WHERE = (
    "import os\n"
    "from lbcore._spool import Spool\n"
    "spool = Spool()\n"
    "try:\n"
    "    spool.put(b'a', 0)\n"
    "    print(os.readlink(f'/proc/self/fd/{spool.owned[\"fd\"]}').rsplit('/', 1)[0])\n"
    "except OSError as error: print(error.errno)\n"
)


def test_files_are_where_the_environment_says(tmp_path: Path) -> None:
    assert run(WHERE, LBCORE_SPOOL_DIR=str(tmp_path)) == str(tmp_path)
    assert run(WHERE, TMPDIR=str(tmp_path)) == str(tmp_path)
    assert run(WHERE, TMPDIR="") == "/var/tmp"
    assert run(WHERE, TMPDIR=str(tmp_path / "missing")) == "/var/tmp"


def test_a_directory_that_was_named_and_is_missing_is_not_replaced(tmp_path: Path) -> None:
    assert run(WHERE, LBCORE_SPOOL_DIR=str(tmp_path / "missing")) == str(errno.ENOENT)


# ---- system calls that do less than asked ------------------------------------------------------

HURDLES = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/types.h>

static int turn;
#define HURDLE(size) do { \
    turn = turn * 1103515245 + 12345; \
    switch ((unsigned) turn >> 16 & 3) { \
    case 0: errno = EINTR; return -1; \
    case 1: if (size > 7) size = size / 3; } } while (0)

ssize_t send(int fd, const void *data, size_t size, int flags)
{ static ssize_t (*real)(int, const void *, size_t, int);
  if (!real) real = dlsym(RTLD_NEXT, "send");
  HURDLE(size); return real(fd, data, size, flags); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{ static ssize_t (*real)(int, const void *, size_t, off_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwrite");
  HURDLE(size); return real(fd, data, size, at); }
ssize_t pread(int fd, void *data, size_t size, off_t at)
{ static ssize_t (*real)(int, void *, size_t, off_t);
  if (!real) real = dlsym(RTLD_NEXT, "pread");
  HURDLE(size); return real(fd, data, size, at); }
ssize_t sendfile(int out, int in, off_t *at, size_t size)
{ static ssize_t (*real)(int, int, off_t *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "sendfile");
  if (getenv("NO_SENDFILE")) { errno = EINVAL; return -1; }
  HURDLE(size); return real(out, in, at, size); }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("without", [{}, {"NO_SENDFILE": "1"}], ids=["sendfile", "copied"])
def test_interrupted_and_short_system_calls_lose_no_byte(
    tmp_path: Path, without: dict[str, str],
) -> None:
    (tmp_path / "hurdles.c").write_text(HURDLES)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", tmp_path / "hurdles.so",
                    tmp_path / "hurdles.c", "-ldl"], check=True)
    said = run(
        "import socket\n"
        "from lbcore._spool import Spool\n"
        "data = b''.join(b'%07d\\n' % n for n in range(250_000))\n"
        "spool, got = Spool(), bytearray()\n"
        "for at in range(0, len(data), 50_000): spool.put(data[at:at + 50_000], 400_000)\n"
        "ours, theirs = socket.socketpair()\n"
        "ours.setblocking(False)\n"
        "theirs.setblocking(False)\n"
        "while spool.owned['size']:\n"
        "    said, given = spool.send(ours.fileno())\n"
        "    assert said in {'wait', 'again', 'done'}, said\n"
        "    while given:\n"
        "        got += (part := theirs.recv(given))\n"
        "        given -= len(part)\n"
        "print(got == data, spool.owned['fd'])\n",
        LD_PRELOAD=f"{os.environ.get('LD_PRELOAD', '')} {tmp_path / 'hurdles.so'}", **without,
    )
    assert said == "True 0"
