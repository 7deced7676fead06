"""Web pages, rendered on the server, without JavaScript."""

from __future__ import annotations

from modhub.server.web import composing, front, module, repository, session, trunk
from modhub.server.web.errors import error_page

__all__ = ["PAGES", "error_page"]

PAGES = (front.routes, session.routes, composing.routes, trunk.routes, module.routes, repository.routes)
