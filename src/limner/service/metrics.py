"""Counters for Prometheus, without names of files, captions or addresses of clients."""

from time import monotonic
from typing import Any

import prometheus_client as prometheus
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The counters of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        self.requests = prometheus.Counter(
            "limner_requests", "Requests by route and status", ["route", "status"], registry=registry
        )
        self.seconds = prometheus.Histogram(
            "limner_request_seconds", "From the last byte of a request to its answer", ["route"], buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.captions = prometheus.Counter("limner_captions", "Captions written", registry=registry)
        self.batches = prometheus.Histogram(
            "limner_batch_media", "Media that were captioned together", buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )  # fmt: skip
        self.refused = prometheus.Counter("limner_refused", "Requests refused, by reason", ["code"], registry=registry)
        self.hangups = prometheus.Counter(
            "limner_hangups", "Clients that closed the connection before their answer", registry=registry
        )
        self.waiting = prometheus.Gauge(
            "limner_waiting_media", "Media that are read, waiting or captioned now", registry=registry
        )
        self.buffered = prometheus.Gauge("limner_buffered_bytes", "Bytes of requests in memory now", registry=registry)

    def text(self) -> bytes:
        """The counters in Prometheus' text format."""
        return prometheus.generate_latest(self.registry)


class Counting:
    """ASGI middleware that counts answers, and forbids browsers to guess their type."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = monotonic(), 0  # 0: the client went away

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            await self.app(scope, receive, counted_send)
        finally:
            route: Any = scope.get("route")
            path = getattr(route, "path", "other")  # a name, so that clients cannot make new counters
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(monotonic() - began)
