"""What the daemon counts of itself while it runs, so cheaply that it always does."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Durations:
    """How often something took how long; times are in seconds."""

    def __init__(self, *bounds: float) -> None:
        """Take the upper bounds of the buckets, each included, in rising order."""
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)  # the last is of what took longer than all bounds

    @property
    def counts(self) -> Sequence[int]:
        """How many fell into each bucket, and into the one without a bound."""
        return self._counts

    def add(self, took: float) -> None:
        """Count one."""
        self._counts[bisect_left(self.bounds, took)] += 1
        self.total += took
