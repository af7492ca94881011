"""Word that something changed, for those who follow: they read the store anew.

A change carries no state, so that a listener can be late, or miss several, and still be right.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Subject(StrEnum):
    """What kind of thing changed."""

    ACTION = "action"
    TOKEN = "token"  # noqa: S105 - a word of the glossary, no password
    SUBMISSION = "submission"
    FINISHED = "finished"
    """A submission came to its end, which is told once; with `SUBMISSION`, which may come again."""
    CONNECTION = "connection"
    MANY = "many"
    """So much at once that everything is to be read anew."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was: an action or a connection by name, the others by id.

    That of `Subject.MANY` says what they have in common.
    """

    subject: Subject
    id: str | int


class Changes:
    """A fan-out on the event loop: `tell` calls every listener at once, in order."""

    def __init__(self) -> None:
        """Begin without listeners."""
        self._listeners: list[Callable[[Change], None]] = []

    def tell(self, subject: Subject, id: str | int) -> None:  # noqa: A002 - the contract's word
        """Call every listener; a listener only notes the change, so it neither waits nor raises."""
        change = Change(subject, id)
        for listener in self._listeners:
            listener(change)

    @contextmanager
    def heard_by(self, listener: Callable[[Change], None]) -> Iterator[None]:
        """Have ``listener`` called for each change while the block runs."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)
