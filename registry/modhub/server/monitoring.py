"""Health check and metrics."""

from __future__ import annotations

import os
import shutil
import time

from starlette.responses import JSONResponse, PlainTextResponse, Response

from modhub.server.http.request import Request
from modhub.server.http.routing import Routes
from modhub.store.disk import disk_errors
from modhub.store.index import Query

routes = Routes()


@routes.get("/healthz")
def health(request: Request) -> Response:
    """200 when the store can be read, 5xx otherwise; whatever is in its repositories."""
    with disk_errors(request.state.root):
        os.listdir(request.state.root)
    return JSONResponse({"status": "ok", "read_only": request.state.options.read_only})


@routes.get("/metrics")
def metrics(request: Request) -> Response:
    """Prometheus text. Counts include private repositories; no names are given."""
    index = request.store.index
    with disk_errors(request.state.root):
        disk = shutil.disk_usage(request.state.root)
    gauges = {
        'modhub_repositories{kind="model"}': float(index.count(Query(kind="model"))),
        'modhub_repositories{kind="dataset"}': float(index.count(Query(kind="dataset"))),
        "modhub_stored_bytes": float(request.state.stored_bytes()),
        "modhub_disk_bytes": float(disk.total),
        "modhub_disk_free_bytes": float(disk.free),
        "modhub_uptime_seconds": time.time() - request.state.started,
    }
    return PlainTextResponse(request.state.metrics.text(gauges), media_type="text/plain; version=0.0.4")
