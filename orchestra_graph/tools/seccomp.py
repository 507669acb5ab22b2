"""A small system call filter for the sandbox: what namespaces and resource limits leave open.

Refused are calls that hold memory which no limit counts (`memfd_create`, System V shared memory and queues), new
namespaces, the kernel's keyrings, and interfaces that a calculation never needs and that had many holes (`bpf`,
`io_uring`, `userfaultfd`, `perf_event_open`); sockets are left to the families that a network namespace closes off.
Everything else is allowed: the filter is one layer, not the wall. It knows x86-64 and AArch64.
"""

from __future__ import annotations

import errno
import platform
import struct

from orchestra_graph.errors import ConfigError

_REFUSED = {
    # name: (x86_64, aarch64), from the kernel's syscall tables
    "add_key": (248, 217),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "msgget": (68, 186),
    "perf_event_open": (298, 241),
    "request_key": (249, 218),
    "setns": (308, 268),
    "shmget": (29, 194),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
_CLONE = (56, 220)
_CLONE3 = (435, 435)
_SOCKET = (41, 198)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the tables above, and the kernel's AUDIT_ARCH value."""

_SOCKET_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK; AF_VSOCK, for one, reaches past a network namespace."""
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET."""
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000


def syscall_filter(machine: str | None = None) -> bytes:
    """The filter as an array of `struct sock_filter`, as bubblewrap's `--seccomp` reads it.

    Args:
        machine: Name of the machine as `platform.machine()` gives it; this machine where None.

    Raises:
        ConfigError: The system call numbers of the machine are not known here.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise ConfigError(
            f"machine = {machine!r}: the sandbox's system call filter knows {', '.join(_ARCHITECTURES)}; "
            "fix: run on one of these, or pass a hosted sandbox"
        )
    column, architecture = _ARCHITECTURES[machine]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for numbers in _REFUSED.values():
        program += [(_EQUAL, 0, 1, numbers[column]), _refuse(errno.EPERM)]
    # the flags of clone3 lie in memory, where a filter cannot look; libc falls back to clone
    program += [(_EQUAL, 0, 1, _CLONE3[column]), _refuse(errno.ENOSYS)]
    program += [
        (_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACES),
        _refuse(errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    families = len(_SOCKET_FAMILIES)
    program += [(_EQUAL, 0, families + 2, _SOCKET[column]), (_LOAD, 0, 0, _FIRST_ARGUMENT)]
    program += [(_EQUAL, families - i, 0, family) for i, family in enumerate(_SOCKET_FAMILIES)]
    program += [_refuse(errno.EAFNOSUPPORT), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in program)


def _refuse(code: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _REFUSE | code)
