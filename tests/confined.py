"""Runs a program under the system call filters of a systemd unit, where no systemd runs.

    python -m tests.confined UNIT PROGRAM ARGUMENT…

It makes of ``SystemCallFilter``, ``RestrictAddressFamilies`` and ``MemoryDenyWriteExecute`` what
systemd makes of them (systemd.exec(5)): seccomp filters, by systemd's own library, that answer
EPERM and EAFNOSUPPORT.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

_ALLOW = 0x7FFF0000
_EPERM = 0x00050000 | errno.EPERM
_EAFNOSUPPORT = 0x00050000 | errno.EAFNOSUPPORT
_MASKED_EQUAL = 7


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


_library = ctypes.CDLL("libseccomp.so.2")
_library.seccomp_init.restype = ctypes.c_void_p


class _Filter:
    """What happens to a system call: one thing to those that are named, another to the others."""

    def __init__(self, default: int) -> None:
        self._filter = ctypes.c_void_p(_library.seccomp_init(ctypes.c_uint32(default)))

    def add(self, action: int, name: str, *comparisons: _Comparison) -> None:
        number = _library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # this machine has none of that name
            return
        array = (_Comparison * len(comparisons))(*comparisons)
        added = _library.seccomp_rule_add_array(
            self._filter, ctypes.c_uint32(action), number, len(comparisons), array
        )
        assert added == 0, (name, added)

    def load(self) -> None:
        assert _library.seccomp_load(self._filter) == 0  # says no_new_privs, too


def settings(unit: Path, name: str) -> list[str]:
    """Return every value of a setting, in order."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def _calls(name: str) -> set[str]:
    """Return the system calls of a set, as systemd knows it."""
    if not name.startswith("@"):
        return {name}
    shown = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    words = [line.strip() for line in shown.splitlines()[1:]]
    return {call for word in words if word and word[0] != "#" for call in _calls(word)}


def confine(unit: Path) -> None:
    """Take from this process, for ever, what the unit does not allow."""
    allowed: set[str] = set()
    for value in settings(unit, "SystemCallFilter"):
        named = {call for word in value.removeprefix("~").split() for call in _calls(word)}
        allowed = allowed - named if value.startswith("~") else allowed | named
    restricted = _Filter(_ALLOW)
    (families,) = settings(unit, "RestrictAddressFamilies")
    others = set(range(64)) - {getattr(socket, name) for name in families.split()}
    for family in others:
        restricted.add(_EAFNOSUPPORT, "socket", _Comparison(0, _MASKED_EQUAL, 0xFFFFFFFF, family))
    if settings(unit, "MemoryDenyWriteExecute") == ["yes"]:
        both = mmap.PROT_WRITE | mmap.PROT_EXEC
        restricted.add(_EPERM, "mmap", _Comparison(2, _MASKED_EQUAL, both, both))
        for name in ("mprotect", "pkey_mprotect"):
            executable = _Comparison(2, _MASKED_EQUAL, mmap.PROT_EXEC, mmap.PROT_EXEC)
            restricted.add(_EPERM, name, executable)
    restricted.load()
    only = _Filter(_EPERM)
    for name in allowed:
        only.add(_ALLOW, name)
    only.load()


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
