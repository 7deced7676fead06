"""What users do, one file per public verb; files with other names hold what several verbs share.

Verbs return frozen dataclasses with `to_dict`. `x(...)` answers in memory, `x_to(path, ...)` writes to disk.
Only verbs that compute import torch: those about networks and images.
"""
