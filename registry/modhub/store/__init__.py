"""Repositories on disk: contents, commits, references, and their maintenance."""
