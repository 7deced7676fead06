"""`python -m modhub_cli` is the command `modhub`."""

from modhub_cli.main import main

main()
