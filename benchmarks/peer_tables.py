"""What peers.py has measured, as tables. What is not measured says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from paper_tables import NOT_MEASURED, many, markdown_table

__all__ = ["BUDGETS", "MORE", "PEERS", "accuracy_table", "latency_table", "section"]

BUDGETS = (0.7, 0.5, 0.35)
MORE = 10
"""Times the seconds of `modhub --tune` that a network from scratch on all images is measured with, too."""
PEERS = ("modhub", "modhub --tune", "torch-pruning", "slim", "slim, all images", f"slim, all images, ×{MORE}")
RUNTIMES = tuple(f"{runtime}, batch {size}" for runtime in ("PyTorch", "ONNX Runtime") for size in (1, 64))

Known = Mapping[str, Any]


def accuracy_table(known: Known, parents: Iterable[str]) -> str:
    """Points lost, size and processor seconds of each peer; `int8` is of the whole parent."""
    rows = []
    for parent in parents:
        for peer in (*PEERS, "int8"):
            row, every = [parent, peer], []
            for budget in BUDGETS:
                place = peer if peer == "int8" else f"{budget:g}/{peer}"
                values = [
                    value
                    for key, value in known.items()
                    if key.startswith(f"peers/{parent}/") and key.split("/", 3)[3] == place
                ]
                if not values:
                    row.append(NOT_MEASURED)
                    continue
                lost = [100 * (value["restricted"] - value["accuracy"]) for value in values]
                error = f" ± {np.std(lost, ddof=1) / len(lost) ** 0.5:.2f}" if len(lost) > 1 else ""
                row.append(f"{np.mean(lost):.2f}{error} ({many(len(lost), 'pair')})".replace("-", "−"))
                every += values
            seconds = [value["seconds"] for value in every]
            row.append(f"{np.mean([value['bytes'] for value in every]) / 1e3:.0f}" if every else "")
            row.append(f"{min(seconds):.0f} to {max(seconds):.0f}" if every else "")
            rows.append(row)
    shares = [f"{100 * budget:.0f} %" for budget in BUDGETS]
    return markdown_table(("parent", "peer", *shares, "kB", "processor seconds"), rows)


def latency_table(known: Known) -> str:
    """Medians of the time over the whole parent's, by budget."""
    rows = []
    for key, times in known.items():
        if not key.startswith("peers/") or not key.endswith("/latency"):
            continue
        _, parent, pair, budget, _ = key.split("/")
        for peer, values in times.items():
            share = "100 %" if peer in ("parent", "int8") else f"{100 * float(budget):.0f} %"
            cells = [f"{values[column]:.2f}" if column in values else "–" for column in RUNTIMES]
            rows.append([f"{parent}, {pair}", peer, share, *cells])
    if not rows:
        return f"Latency: {NOT_MEASURED}.\n"
    return markdown_table(("parent, pair", "network", "multiply-adds", *RUNTIMES), rows)


def section(known: Known) -> str:
    """What docs/evaluation.md says of the peers."""
    parents = sorted({key.split("/")[1] for key in known}) or ["C10-R20"]
    return "\n".join(
        [
            "What a user would pick instead, two of ten classes: points lost against the parent's logits "
            "restricted to them, the mean over the pairs, by share of the multiply-adds; `int8` is the "
            "whole parent. What trains gets the processor seconds that modhub with `--tune` took for the "
            f"same pair and share, ×{MORE} {MORE} times as many. A pair at one share takes half an hour "
            f"of one core with all peers but ×{MORE}, which alone takes more than another hour: where it "
            f"says {NOT_MEASURED}, that is why. More pairs of modhub's own rows, on the same images, stand "
            "[below](#compositions-measured-so-far-and-missed).\n",
            "    python benchmarks/peers.py --data D --weights W --out DIR\n",
            accuracy_table(known, parents),
            "Time over the whole parent's, medians of interleaved runs on one thread; what trains is not "
            "trained for it.\n",
            latency_table(known),
        ]
    )
