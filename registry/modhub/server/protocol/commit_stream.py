"""Parses a commit while it arrives: lines of JSON with base64 file contents, in constant memory.

A line `{"key": "file", "value": {"content": "<base64>", "path": …}}` may be gigabytes long. Its content is
decoded while it arrives and passed to a blob writer; the rest of the line is small and parsed as JSON.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from modhub.server.errors import HTTPError
from modhub.server.http.request import parse_body
from modhub.store.blobs import Blob, BlobWriter

SKELETON_LIMIT = 1 << 20
LINES_LIMIT = 100_000
_CONTENT = re.compile(rb'(?<!\\)"content"\s*:\s*"')

Line = tuple[str, dict[str, Any], Blob | None]


class CommitReader:
    """Feed it the body; `on_line` gets (key, value, blob of the content or None) for each line, in order.

    Raises `HTTPError` 400 or 422 for an invalid commit, 413 for endless lines. Call `close` in any case.
    """

    def __init__(self, open_writer: Callable[[], BlobWriter], on_line: Callable[[Line], None]) -> None:
        self._open_writer = open_writer
        self._on_line = on_line
        self._line = bytearray()
        self._rest = b""
        self._writer: BlobWriter | None = None
        self._blob: Blob | None = None
        self._searched = 0
        self._count = 0

    def feed(self, chunk: bytes) -> None:
        """More of the body."""
        while chunk:
            chunk = self._in_content(chunk) if self._writer is not None else self._in_line(chunk)

    def finish(self) -> None:
        """The body is over."""
        if self._writer is not None:
            raise HTTPError(400, "The commit ends inside a file.")
        self._end_line()

    def close(self) -> None:
        """Discard an unfinished blob."""
        if self._writer is not None:
            self._writer.__exit__(None, None, None)
            self._writer = None

    def _in_line(self, chunk: bytes) -> bytes:
        newline = chunk.find(b"\n")
        part = chunk if newline < 0 else chunk[:newline]
        start = max(0, self._searched - 64)
        before = len(self._line)
        self._line += part
        content = _CONTENT.search(self._line, start) if self._blob is None else None
        if content is not None:
            used = content.end() - before
            del self._line[content.end() :]
            self._writer = self._open_writer()
            self._rest = b""
            # The match ends in this chunk, before its newline.
            return chunk[used:]
        self._searched = len(self._line)
        if len(self._line) > SKELETON_LIMIT:
            raise HTTPError(413, "A line of the commit is too long.")
        if newline < 0:
            return b""
        self._end_line()
        return chunk[newline + 1 :]

    def _in_content(self, chunk: bytes) -> bytes:
        quote = chunk.find(b'"')
        part = chunk if quote < 0 else chunk[:quote]
        if b"\\" in part or b"\n" in part:
            raise HTTPError(400, "The content of a file is not valid base64.")
        part = self._rest + part
        complete = len(part) if quote >= 0 else len(part) - len(part) % 4
        self._rest = part[complete:]
        self._write(part[:complete])
        if quote < 0:
            return b""
        if self._writer is not None:
            self._blob = self._writer.finish()
            self.close()
        self._line += b'"'
        self._searched = len(self._line)
        return chunk[quote + 1 :]

    def _write(self, encoded: bytes) -> None:
        try:
            content = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise HTTPError(400, "The content of a file is not valid base64.") from None
        if content and self._writer is not None:
            self._writer.write(content)

    def _end_line(self) -> None:
        line, blob = bytes(self._line), self._blob
        self._line.clear()
        self._blob, self._searched = None, 0
        if not line.strip():
            return
        self._count += 1
        if self._count > LINES_LIMIT:
            raise HTTPError(413, f"A commit may have at most {LINES_LIMIT:,} lines.")
        document = parse_body(line)
        key, value = document.get("key"), document.get("value")
        if not isinstance(key, str) or not isinstance(value, dict):
            raise HTTPError(400, 'A commit line must be {"key": …, "value": {…}}.')
        if blob is not None and (key != "file" or value.get("content") != ""):
            raise HTTPError(400, "Only the line of a file may have a content.")
        self._on_line((key, value, blob))
