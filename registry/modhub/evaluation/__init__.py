"""How good, how large and how fast classifiers are."""
