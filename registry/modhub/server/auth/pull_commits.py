"""Who may read the commits of a pull request by their ids.

Anybody who may read a repository may propose changes to it, so a proposed commit is not the repository's own
until it is merged: `lab/net@<commit>` must not show it. Yet clients that ask for `refs/pr/1` are told its
commit, and fetch the files by that. So the commit resolves for those who asked, for a while.
"""

from __future__ import annotations

import threading
import time

SECONDS = 15 * 60.0
LIMIT = 10_000


class PullCommits:
    """Commits by client and repository, each good for `SECONDS` after its last use."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, str, str], float] = {}
        self._lock = threading.Lock()

    def note(self, client: str, repository: str, commit: str) -> None:
        """The client asked for a pull request that is at `commit`."""
        with self._lock:
            # The oldest go first: a dictionary keeps the order of insertion.
            self._asked.pop((client, repository, commit), None)
            self._asked[client, repository, commit] = time.monotonic()
            while len(self._asked) > LIMIT:
                del self._asked[next(iter(self._asked))]

    def admits(self, client: str, repository: str, commit: str) -> bool:
        """Whether the client asked for it lately."""
        moment = self._asked.get((client, repository, commit))
        if moment is None or time.monotonic() - moment > SECONDS:
            return False
        self.note(client, repository, commit)
        return True
