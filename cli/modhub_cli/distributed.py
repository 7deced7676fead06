"""`modhub decompose` by several processes: torchrun --nproc-per-node 2 -m modhub.decompose PARENT …

The processes may run on several machines that share a file system; the first of them reports and writes.
"""

from __future__ import annotations

import os
import sys

import torch.distributed as dist

from modhub_cli.main import main as command_line


def main() -> None:
    """Join torchrun's process group, then run `modhub decompose`."""
    arguments = sys.argv[1:]
    if shared := "WORLD_SIZE" in os.environ:
        # Sums are made on the CPU, whatever device computes them.
        dist.init_process_group("gloo")
        if dist.get_rank() > 0:
            arguments = [*(argument for argument in arguments if argument != "--json"), "--quiet"]
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    sys.argv = ["modhub", "decompose", *arguments]
    try:
        command_line()
    except SystemExit as end:
        if not shared or not isinstance(end.code, int | None):
            raise
        dist.destroy_process_group()
        # All is written. Threads of the process group that want Python while it ends would abort the process,
        # and torchrun would call the work failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code or 0)
    finally:
        if shared and dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
