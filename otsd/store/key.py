"""The instance key: 32 random bytes in a file of their own, beside the database.

Whoever has it and the database can make every link, so nobody but the daemon's user may read it.
Each purpose has a key of its own, derived by HKDF (RFC 5869), so that no use weakens another.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from otsd.core.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

NAME: Final = "otsd.key"
_SIZE: Final = 32


class InstanceKey:
    """The key of this instance; it does not print itself."""

    def __init__(self, secret: bytes) -> None:
        """Take the 32 bytes of the file."""
        self._secret = secret

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes for one purpose, such as ``codes``."""
        hkdf = HKDF(algorithm=SHA256(), length=_SIZE, salt=None, info=f"otsd {purpose}".encode())
        return hkdf.derive(self._secret)

    @property
    def fingerprint(self) -> bytes:
        """Tells two keys apart and says nothing about either."""
        return self.derive("fingerprint")[:16]


def load(directory: Path) -> InstanceKey | None:
    """Read the key of a storage directory; ``None`` if there is none.

    Raises:
        StartError: others may read it, or it is not a key.

    """
    path = directory / NAME
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(1024)
    except FileNotFoundError:
        return None
    except OSError as error:
        msg = f"The key file {path} cannot be read: {error.strerror}."
        raise StartError(msg) from error
    if mode & 0o077:
        msg = (
            f"The key file {path} can be read by others (mode {mode:04o}), and whoever has it can "
            f"make links. Run: chmod 600 {path}. If somebody may have copied it, rotate the links."
        )
        raise StartError(msg)
    with suppress(ValueError):
        if len(secret := bytes.fromhex(text.decode("ascii", "replace").strip())) == _SIZE:
            return InstanceKey(secret)
    msg = (
        f"The key file {path} is damaged: it must hold 64 hexadecimal digits. "
        f"Take it from a backup."
    )
    raise StartError(msg)


def create(directory: Path) -> InstanceKey:
    """Make the key of a new storage directory; on disk before it is used."""
    secret = secrets.token_bytes(_SIZE)
    path = directory / NAME
    new = path.with_name(f"{NAME}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret.hex().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    sync_directory(directory)
    return InstanceKey(secret)


def sync_directory(directory: Path) -> None:
    """Make new and renamed files of a directory survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
