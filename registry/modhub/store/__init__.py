"""Repositories on a disk: contents, commits and references, and what keeps them whole."""
