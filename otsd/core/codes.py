"""The secret in a link: how a code is made, proven and spelled.

A code is 24 bytes: a random 64-bit lookup id of its own (never the token's public id) and the
first 128 bits of an HMAC-SHA256 over it under a key that only this instance has. So a wrong code
is refused without touching the disk, a link can be shown again without its code being kept, and
a copy of the database opens nothing. 128 bits is the truncation that RFC 2104 section 5 allows.

Codes that were imported carry no such proof: each is looked up by an HMAC of all of it.

The spelling is base 62 in exactly 33 characters, most significant first, so that every code has
one spelling: 33 is never 32, the length of codes that were imported from elsewhere.
"""

from __future__ import annotations

import hmac
import string
from hashlib import sha256
from typing import Final

LENGTH: Final = 33
IMPORTED_LENGTH: Final = 32
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_LOOKUP_BYTES: Final = 8
_PROOF_BYTES: Final = 16
_SIZE: Final = _LOOKUP_BYTES + _PROOF_BYTES


class Code:
    """A code that does not print itself: only `reveal` gives the text, for a link or a hash."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Wrap the text of a code, right or wrong."""
        self._text = text

    def reveal(self) -> str:
        """Return the text that stands in the URL."""
        return self._text

    def __repr__(self) -> str:
        """Hide the text: a code that reaches a log by accident stays secret."""
        return "Code(…)"

    __str__ = __repr__


class Codes:
    """Makes codes from lookup ids and proves them, with one key of this instance."""

    def __init__(self, key: bytes) -> None:
        """Take 32 bytes that nobody else has."""
        self._hmac = hmac.new(key, digestmod=sha256)

    def code(self, lookup: int) -> Code:
        """Return the code of a lookup id of 64 bits; always the same for the same key."""
        prefix = lookup.to_bytes(_LOOKUP_BYTES, "big")
        return Code(_spell(prefix + self._proof(prefix)))

    def lookup(self, text: str) -> int | None:
        """Return the lookup id that the text proves, or ``None`` where it proves nothing."""
        raw = _read(text)
        if raw is None:
            return None
        prefix, proof = raw[:_LOOKUP_BYTES], raw[_LOOKUP_BYTES:]
        if not hmac.compare_digest(proof, self._proof(prefix)):
            return None
        return int.from_bytes(prefix, "big")

    def _proof(self, prefix: bytes) -> bytes:
        keyed = self._hmac.copy()
        keyed.update(prefix)
        return keyed.digest()[:_PROOF_BYTES]


class ImportedCodes:
    """Tells codes of the One Time Service add-on: 32 letters, kept as their HMAC."""

    def __init__(self, key: bytes) -> None:
        """Take 32 bytes that nobody else has, other than those of `Codes`."""
        self._hmac = hmac.new(key, digestmod=sha256)

    @staticmethod
    def has_form(text: str) -> bool:
        """Return whether a text looks like such a code."""
        return len(text) == IMPORTED_LENGTH and text.isascii() and text.isalpha()

    def digest(self, code: Code) -> bytes:
        """Return what a code is kept and found by; the same for the same key."""
        keyed = self._hmac.copy()
        keyed.update(code.reveal().encode())
        return keyed.digest()


def _spell(raw: bytes) -> str:
    number = int.from_bytes(raw, "big")
    letters = []
    for _ in range(LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(reversed(letters))


def _read(text: str) -> bytes | None:
    if len(text) != LENGTH:
        return None
    number = 0
    try:
        for letter in text:
            number = number * len(_ALPHABET) + _VALUES[letter]
    except KeyError:
        return None
    # 33 letters can spell a little more than 24 bytes hold; those spellings belong to no code
    return number.to_bytes(_SIZE, "big") if number >> (8 * _SIZE) == 0 else None
