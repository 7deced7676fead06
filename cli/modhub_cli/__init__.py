"""The command line: parses, calls `modhub.api`, prints. Nothing is computed here."""
