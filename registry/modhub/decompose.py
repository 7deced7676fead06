"""`python -m modhub.decompose`, the name under which torchrun starts `modhub decompose`.

The function `modhub.decompose` is not here: see `modhub.api`.
"""

import runpy

if __name__ == "__main__":
    # By name: the library imports nothing of the command line.
    runpy.run_module("modhub_cli.distributed", run_name="__main__")
