"""Steering new connections within a group of SO_REUSEPORT sockets.

Without a program the kernel picks a socket of the group by the hash of the connection's
addresses. A classic BPF program makes it pick among chosen positions only, so that a socket can
be emptied and closed while its neighbours go on (socket(7), SO_ATTACH_REUSEPORT_CBPF).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

SO_ATTACH_FILTER = 26
SO_ATTACH_REUSEPORT_CBPF = 51
SO_DETACH_REUSEPORT_BPF = 68

_LOAD_WORD = 0x20           # BPF_LD | BPF_W | BPF_ABS
_MODULO = 0x94              # BPF_ALU | BPF_MOD | BPF_K
_JUMP_EQUAL = 0x15          # BPF_JMP | BPF_JEQ | BPF_K
_RETURN_CONSTANT = 0x06     # BPF_RET | BPF_K
_RANDOM = 0x1_0000_0000 - 0x1000 + 56   # SKF_AD_OFF + SKF_AD_RANDOM


def program(positions: Sequence[int]) -> bytes:
    """The program that picks one of ``positions`` with equal chance, as sock_filter structs."""
    if not positions:
        raise ValueError("a group cannot be steered to no socket at all")
    code = [(_LOAD_WORD, 0, 0, _RANDOM), (_MODULO, 0, 0, len(positions))]
    for number, position in enumerate(positions[:-1]):
        code.append((_JUMP_EQUAL, 0, 1, number))    # not this number: skip the next line
        code.append((_RETURN_CONSTANT, 0, 0, position))
    code.append((_RETURN_CONSTANT, 0, 0, positions[-1]))
    return b"".join(struct.pack("=HBBI", *line) for line in code)


def steer(member: socket.socket, positions: Sequence[int]) -> None:
    """New connections of the member's group go to the sockets at these positions only.

    Positions count in the order in which the sockets began to listen. Raises OSError.
    """
    _attach(member, SO_ATTACH_REUSEPORT_CBPF, program(positions))


def deafen(listening: socket.socket) -> None:
    """No handshake begins or ends at this listening socket any more, for good. Raises OSError.

    What is queued in it stays, so that it can be taken before the socket is closed: without this,
    a connection that arrives between the last look and the close is reset. The client's SYN is
    not answered; it repeats it a second later and is refused then.
    """
    _attach(listening, SO_ATTACH_FILTER, struct.pack("=HBBI", _RETURN_CONSTANT, 0, 0, 0))


def _attach(to: socket.socket, option: int, code: bytes) -> None:
    memory = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a length, padding and a pointer, in native alignment.
    fprog = struct.pack("@HP", len(code) // 8, ctypes.addressof(memory))
    to.setsockopt(socket.SOL_SOCKET, option, fprog)


def unsteer(member: socket.socket) -> None:
    """Gives the choice back to the kernel's hash; nothing happens when it has it already."""
    try:
        member.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
    except FileNotFoundError:
        return
