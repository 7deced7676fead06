"""Counters for Prometheus, in its text format, without a library."""

from __future__ import annotations

import threading
from collections import defaultdict

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Metrics:
    """Requests by method, route and status; seconds until the answer began; bytes; requests in flight."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._bytes = {"received": 0, "sent": 0}
        self._in_flight = 0

    def begin(self) -> None:
        with self._lock:
            self._in_flight += 1

    def end(self, method: str, route: str, status: int, seconds: float) -> None:
        place = next((index for index, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
        with self._lock:
            self._in_flight -= 1
            self._requests[method, route, status] += 1
            self._buckets[place] += 1
            self._seconds += seconds

    def count(self, direction: str, size: int) -> None:
        """`size` more bytes of bodies were `received` or `sent`."""
        with self._lock:
            self._bytes[direction] += size

    def text(self, gauges: dict[str, float]) -> str:
        """Everything, and `gauges` (full metric name → value)."""
        with self._lock:
            requests, buckets = dict(self._requests), list(self._buckets)
            seconds, sizes, in_flight = self._seconds, dict(self._bytes), self._in_flight
        lines = ["# TYPE modhub_requests_total counter"]
        for (method, route, status), number in sorted(requests.items()):
            labels = f'method="{method}",route="{route.translate(_ESCAPES)}",status="{status}"'
            lines.append(f"modhub_requests_total{{{labels}}} {number}")
        lines.append("# TYPE modhub_request_seconds histogram")
        total = 0
        for bound, number in zip((*map(str, BUCKETS), "+Inf"), buckets, strict=True):
            total += number
            lines.append(f'modhub_request_seconds_bucket{{le="{bound}"}} {total}')
        lines += [f"modhub_request_seconds_sum {seconds:.6f}", f"modhub_request_seconds_count {total}"]
        lines.append("# TYPE modhub_body_bytes_total counter")
        lines += [f'modhub_body_bytes_total{{direction="{name}"}} {size}' for name, size in sizes.items()]
        for name, value in {"modhub_requests_in_flight": in_flight, **gauges}.items():
            typed = f"# TYPE {name.partition('{')[0]} gauge"
            # Fifteen digits: exact for any number of bytes.
            lines += [f"{name} {value:.15g}"] if typed in lines else [typed, f"{name} {value:.15g}"]
        return "\n".join(lines) + "\n"
