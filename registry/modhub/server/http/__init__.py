"""Requests and answers: routes, bodies within limits, the ASGI application."""
