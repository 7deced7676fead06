"""Where the towers meet: what users do, in one call each. Reports are plain dictionaries with stable keys.

`projects`, `sharing` and `comparing` never import torch; `making`, `composing` and `using` do.
"""
