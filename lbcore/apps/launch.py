"""Becomes an application server: the last steps that only its own process can make.

    PYTHON launch.py SERVER DESCRIPTOR ARGUMENT...

It runs in the application's Python, which may be older than lbcore's and has no lbcore: standard
library only, syntax of Python 3.8. DESCRIPTOR is the listening socket that gunicorn is to serve,
or -1. It is handed over as systemd would (sd_listen_fds(3)), because gunicorn then leaves the
path of the socket alone when it ends; any other way it removes it, or fails when it may not.
"""

import importlib.util
import os
import signal
import sys

FIRST_DESCRIPTOR = 3             # SD_LISTEN_FDS_START
# Since 25.1 gunicorn opens one control socket per user, for which several would quarrel.
CONTROL_SOCKET_SINCE = (25, 1)


def version(package):
    # type: (str) -> tuple[int, ...]
    """The first numbers of a package's version; empty if it cannot be found out."""
    from importlib import metadata  # noqa: PLC0415  (only gunicorn needs it)

    try:
        return tuple(int(part) for part in metadata.version(package).split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):
        return ()


def main(arguments):
    # type: (list[str]) -> int
    """Does not return when all is well."""
    server, descriptor, rest = arguments[0], int(arguments[1]), arguments[2:]
    sys.path.pop(0)              # the directory of this file: the server's own modules count
    if importlib.util.find_spec(server) is None:
        print(f"{server} is not installed for {sys.executable}: "
              f"{sys.executable} -m pip install {server}", file=sys.stderr)
        return 1
    if server == "gunicorn":
        if descriptor >= 0:
            os.dup2(descriptor, FIRST_DESCRIPTOR)
            os.environ["LISTEN_PID"] = str(os.getpid())
            os.environ["LISTEN_FDS"] = "1"
        if version("gunicorn") >= CONTROL_SOCKET_SINCE:
            rest.insert(0, "--no-control-socket")
    # A supervisor that has just been upgraded blocks signals for a moment, and masks are inherited.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execv(sys.executable, [sys.executable, "-m", server, *rest])
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
