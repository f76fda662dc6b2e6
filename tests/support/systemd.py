"""A systemd of our own, as PID 1 of namespaces of its own, for trying the shipped units for real.

Everything it could touch is its own: processes, mounts, cgroups, host name and network. It boots
into an empty target, so that nothing runs but what a test starts. Needs root, and a kernel that
allows all that.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import ROOT, until

SYSTEMD = Path("/lib/systemd/systemd")
UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net",
           "--cgroup", "--mount-proc"]
# Nothing of this machine may be changed from inside, whatever systemd believes that a boot is (its
# own would empty /tmp): the root is read-only, what is written to is in memory, and systemd finds
# no units but ours. The interpreter and the tree are brought to places that the sandbox of a
# service does not hide.
BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/etc /run/dev/pts /run/dev/shm
cp -a /etc/. /run/etc
for name in null zero full random urandom tty; do
    touch /run/dev/$name && mount --bind /dev/$name /run/dev/$name
done
ln -s /proc/self/fd /run/dev/fd
mount -t devpts -o ptmxmode=0666 devpts /run/dev/pts && ln -s pts/ptmx /run/dev/ptmx
mount -t tmpfs tmpfs /opt
mkdir -p /opt/lbcore/bin /opt/python /opt/tree /opt/packages
mount --bind "$PYTHON_HOME" /opt/python
mount --bind "$TREE" /opt/tree
mount --bind "$PACKAGES" /opt/packages
cp "$STAGE/lbcore" /opt/lbcore/bin/lbcore
rm -rf /run/etc/systemd /run/etc/lbcore
mkdir -p /run/etc/systemd/system /run/etc/lbcore
cp "$STAGE"/*.service "$STAGE"/*.socket "$STAGE"/*.target /run/etc/systemd/system
cp "$STAGE/lb.toml" /run/etc/lbcore && chmod 644 /run/etc/lbcore/lb.toml
cp "$STAGE/lbcore.sysusers" /run
mount --bind /run/etc /etc
for place in /tmp /var /root /home /srv /mnt /media /usr/lib/systemd/system; do
    [ ! -d $place ] || mount -t tmpfs tmpfs $place
done
mkdir -p /var/tmp /var/log /var/cache /var/lib
chmod 1777 /tmp /var/tmp
umount -R /sys/fs/cgroup
mount --rbind /run/dev /dev
mount --bind /sys /sys
mount --bind /proc/sys /proc/sys
own=cgroup,cgroup2,devpts,devtmpfs,proc,sysfs,tmpfs,tracefs
for place in $(findmnt --raw --noheadings --output TARGET --types no$own) /sys /proc/sys; do
    mount -o remount,bind,ro "$place"
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for place in /usr/lib /opt/tree /sys /proc/sys; do
    [ ! -w $place ] || ! touch $place/lbcore-test || exit 1
done
[ "$(stat --file-system --format=%T /tmp)" = tmpfs ] || exit 1
systemd-sysusers /run/lbcore.sysusers
ip link set lo up
export container=lbcore-test
exec /lib/systemd/systemd --system --unit=lbcore-test.target --log-target=null --show-status=no
"""
TARGET = "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n"
COMMAND = """#!/bin/sh
export PYTHONPATH=/opt/tree:/opt/packages PYTHONDONTWRITEBYTECODE=1
export LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/{python} -P -m lbcore "$@"
"""


class Systemd:
    """The running systemd. Its units are the shipped ones; ``config`` is its lb.toml."""

    def __init__(self, config: str) -> None:
        self.stage = Path(tempfile.mkdtemp(prefix="lbcore-systemd-"))
        self.stage.chmod(0o755)
        units = ROOT / "conf" / "systemd"
        for file in units.iterdir():
            if file.is_file():
                shutil.copy(file, self.stage)
        for name in ("lbcore-test", "sysinit", "basic", "network-online", "shutdown"):
            (self.stage / f"{name}.target").write_text(TARGET)
        (self.stage / "lb.toml").write_text(config)
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        (self.stage / "lbcore").write_text(COMMAND.format(python=python))
        (self.stage / "lbcore").chmod(0o755)
        # A group to which the namespace is confined: what is in it can be ended as one.
        self.group = _unified() / f"lbcore-test-{secrets.token_hex(4)}"
        self.group.mkdir()
        self._process = subprocess.Popen(
            [*UNSHARE, "bash", "-c", BOOT],
            env=os.environ | {"STAGE": str(self.stage), "TREE": str(ROOT),
                              "PYTHON_HOME": sys.base_prefix,
                              "PACKAGES": sysconfig.get_path("purelib")},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            preexec_fn=self._join)       # noqa: PLW1509  (nothing else runs in this process)

    def _join(self) -> None:
        (self.group / "cgroup.procs").write_text("0")

    @property
    def pid(self) -> int:
        """Its process number outside; 0 until there is one."""
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        children = path.read_text().split()
        return int(children[0]) if children else 0

    def run(self, *words: str, check: bool = True) -> str:
        """What a command prints that runs inside."""
        said = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", "--", *words], capture_output=True,
            text=True, check=False, timeout=120, env={"PATH": os.environ["PATH"] + ":/usr/sbin"})
        if check and said.returncode:
            raise AssertionError(f"{words}: {said.returncode}: {said.stdout}{said.stderr}")
        return said.stdout

    def fails(self, *words: str) -> str:
        """What a command prints that must not succeed."""
        said = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", "--", *words], capture_output=True,
            text=True, check=False, timeout=120)
        assert said.returncode, words
        return said.stdout + said.stderr

    def show(self, name: str, unit: str = "lbcore.service") -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()

    def inside(self, words: list[str]) -> list[str]:
        """A command of this machine that shares only the network of the inside."""
        return ["nsenter", "--target", str(self.pid), "--net", "--", *words]

    def wait_until_up(self) -> None:
        """Waits until it takes commands."""

        def up() -> bool:
            if self._process.poll() is not None:
                assert self._process.stderr
                pytest.skip("systemd does not run here: "
                            + self._process.stderr.read().decode()[-300:])
            said = subprocess.run(
                ["nsenter", "--target", str(self.pid), "--all", "--", "systemctl", "is-active",
                 "lbcore-test.target"], capture_output=True, text=True, check=False, timeout=60
            ) if self.pid else None
            return said is not None and said.stdout.strip() == "active"

        until(up, "systemd is up")

    def close(self) -> None:
        """Ends everything that runs inside, by the end of its first process."""
        with contextlib.suppress(OSError, ValueError):
            if self.pid:
                os.kill(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()
        with contextlib.suppress(OSError, AssertionError):
            until(lambda: not _populated(self.group), "its group is empty", 10)
        _remove(self.group)
        shutil.rmtree(self.stage, ignore_errors=True)


def _unified() -> Path:
    """Where the cgroup (v2) hierarchy is mounted, beside older ones or alone."""
    beside = Path("/sys/fs/cgroup/unified")
    return beside if beside.is_dir() else Path("/sys/fs/cgroup")


def _populated(group: Path) -> bool:
    return "populated 1" in (group / "cgroup.events").read_text()


def _remove(group: Path) -> None:
    for inner in sorted(group.rglob("*/"), key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):
            inner.rmdir()
    with contextlib.suppress(OSError):
        group.rmdir()


@contextlib.contextmanager
def systemd(config: str) -> Iterator[Systemd]:
    """A systemd that leaves nothing behind; skips the test where there can be none."""
    if os.geteuid() != 0 or not SYSTEMD.exists() or not shutil.which("unshare"):
        pytest.skip("needs root and systemd")
    if not os.access(_unified() / "cgroup.procs", os.W_OK):
        pytest.skip("needs a cgroup (v2) that can be written to")
    made = Systemd(config)
    try:
        made.wait_until_up()
        yield made
    finally:
        made.close()
