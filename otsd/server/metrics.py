"""What Prometheus reads of the daemon: what was counted while it ran, and how it stands now.

The parts count for themselves, in plain numbers. The library that knows Prometheus' formats is
loaded when somebody asks for the first time.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from aiohttp import web

from otsd import __version__
from otsd.core.errors import StorageUnavailable
from otsd.core.ports import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client import Metric
    from prometheus_client.metrics_core import HistogramMetricFamily

    from otsd.core.measures import Durations
    from otsd.core.ports import Clock, ConnectionStatus, Counts, Store
    from otsd.core.submit import Submissions

_MQTT: Final = "mqtt"


@dataclass(frozen=True, slots=True)
class Measured:
    """What there is to tell of; ``connections`` say how each stands, by name."""

    store: Store
    submissions: Submissions
    writes: Durations
    connections: Mapping[str, Callable[[], ConnectionStatus]]
    now: Clock


class Metrics:
    """Tells what was measured, in Prometheus' text format."""

    def __init__(self, measured: Measured) -> None:
        """Take what there is to tell of."""
        self._measured = measured

    async def show(self, accept: str) -> web.Response:
        """Return everything as it is now, in the form that an ``Accept`` header asks for."""
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - many never ask

        measured, counts = self._measured, None
        with suppress(StorageUnavailable):  # a full disk is when the rest is looked at
            counts = await measured.store.counts(measured.now())
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # it asks for a version that is none
            encode, content_type = choose_encoder("")
        body = encode(_Collected(measured, counts))
        return web.Response(body=body, headers={"Content-Type": content_type})


class _Collected:
    """The metrics at one moment, as the library asks for them."""

    def __init__(self, measured: Measured, counts: Counts | None) -> None:
        """Take what was measured; without ``counts`` the store cannot tell them."""
        self._measured = measured
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import (  # noqa: PLC0415 - see above
            CounterMetricFamily,
            GaugeMetricFamily,
            InfoMetricFamily,
        )

        measured, counts = self._measured, self._counts
        yield InfoMetricFamily("otsd_build", "The release.", {"version": __version__})
        ended = CounterMetricFamily(
            "otsd_submissions", "Submissions that have ended, by outcome.", labels=["outcome"]
        )
        for outcome, number in measured.submissions.ended.items():
            ended.add_metric([outcome.value], number)
        yield ended
        yield _histogram(
            "otsd_submission_duration_seconds",
            "Time from the press until the outcome was on disk.",
            measured.submissions.durations,
        )
        yield GaugeMetricFamily(
            "otsd_running_submissions",
            "Submissions that run now.",
            value=measured.submissions.running,
        )
        up = GaugeMetricFamily(
            "otsd_connection_up", "Whether the other side is connected.", labels=["connection"]
        )
        for name, status in measured.connections.items():
            state = status().state
            # a daemon without a broker misses nothing, one without Home Assistant can do nothing
            if name != _MQTT or state is not ConnectionState.OFF:
                up.add_metric([name], state is ConnectionState.CONNECTED)
        yield up
        yield _histogram(
            "otsd_store_write_duration_seconds",
            "Time from asking for a write until it was on disk.",
            measured.writes,
        )
        if counts is None:
            return
        waiting = GaugeMetricFamily(
            "otsd_outbox_length", "What waits to be told to Home Assistant.", labels=["queue"]
        )
        waiting.add_metric(["event"], counts.waiting_events)
        waiting.add_metric(["notification"], counts.waiting_notifications)
        yield waiting
        yield GaugeMetricFamily("otsd_actions", "Actions that there are.", value=counts.actions)
        yield GaugeMetricFamily("otsd_tokens", "Tokens that there are.", value=counts.tokens)
        yield GaugeMetricFamily(
            "otsd_active_tokens",
            "Tokens that could be used now.",
            value=counts.total.active_tokens,
        )


def _histogram(name: str, about: str, durations: Durations) -> HistogramMetricFamily:
    from prometheus_client.metrics_core import HistogramMetricFamily  # noqa: PLC0415 - see above

    bounds = [*map(str, durations.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(durations.counts), strict=True))
    return HistogramMetricFamily(name, about, buckets=buckets, sum_value=durations.total)
