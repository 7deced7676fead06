"""Processes of `modhub decompose` that begin at once: they are forked from one that has imported torch."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import pytest

__all__ = ["Decomposition"]

_CONTEXT = multiprocessing.get_context("forkserver")


class Decomposition:
    """`python -m modhub.decompose ARGUMENTS` at work in a process of its own, on one thread; `code` is run
    there first."""

    def __init__(
        self, arguments: list[str], log: Path, code: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        _CONTEXT.set_forkserver_preload(["modhub_cli.distributed", "modhub.api.decompose"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
            ensure_running()
        self.log = log
        self.process = _CONTEXT.Process(target=_decompose, args=(arguments, log, code, environment or {}))
        self.process.start()

    def end(self) -> tuple[int | None, str]:
        """The exit code, and what was written to both streams."""
        self.process.join(200)
        return self.process.exitcode, self.log.read_text(encoding="utf-8")


def _decompose(arguments: list[str], log: Path, code: str, environment: Mapping[str, str]) -> None:
    import torch

    from modhub_cli.distributed import main

    with log.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    torch.set_num_threads(1)
    os.environ.update(environment)
    exec(code, {})
    sys.argv = ["modhub", *arguments]
    main()
