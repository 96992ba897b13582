"""What the service counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCIES = 0.03, 0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 30  # seconds


class ServiceMetrics:
    """Requests, seconds of audio, the length of the queue, the time to the first audio."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "codec_slm_requests", "Requests answered", ["route", "status"], registry=registry
        )
        self.audio = Counter(
            "codec_slm_audio_seconds", "Seconds of audio taken and given", ["route"], registry=registry
        )
        self.first_audio = Histogram(
            "codec_slm_first_audio_seconds",
            "Time from a request for speech to its first audio",
            buckets=_LATENCIES,
            registry=registry,
        )
        self._waiting = Gauge("codec_slm_waiting_requests", "Requests that wait", registry=registry)

    def watch_queue(self, waiting: Callable[[], float]) -> None:
        """`waiting` tells how many requests wait."""
        self._waiting.set_function(waiting)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
