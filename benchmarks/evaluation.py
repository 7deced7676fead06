"""Write docs/evaluation.md and its plots from what was measured.

    python benchmarks/evaluation.py [--add paper=DIR/paper.jsonl methods=DIR/measurements.jsonl ...]

Everything on the page comes from benchmarks/measured: its *.jsonl, and the rows of composition.py that
people have picked and explained in composition.md; `--add` first takes over measurements of
benchmarks that ran elsewhere, rounded to six digits. What is not measured says so, with the command that
measures it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

import peer_tables
from paper_findings import findings
from paper_tables import NOT_MEASURED, cells, energy_figures, many, markdown_table, tables

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "benchmarks" / "measured"
PAGE = ROOT / "docs" / "evaluation.md"
PLOTS = ROOT / "docs" / "plots"
LIMIT = 100_000
"""Bytes of a file of measurements."""

BIBTEX = """\
@software{modhub,
  title   = {modhub: the package registry for parts of neural networks},
  author  = {{The modhub authors}},
  version = {VERSION},
  year    = {2026}
}
@inproceedings{pan2022decomposing,
  title     = {Decomposing Convolutional Neural Networks into Reusable and Replaceable Modules},
  author    = {Pan, Rangeet and Rajan, Hridesh},
  booktitle = {Proceedings of the 44th International Conference on Software Engineering (ICSE)},
  year      = {2022},
  url       = {https://arxiv.org/abs/2110.07720}
}
"""

Known = Mapping[str, Any]


def read(path: Path) -> dict[str, Any]:
    """Measurements by key; none where there is no file."""
    if not path.exists():
        return {}
    entries = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {entry["key"]: entry["value"] for entry in entries}


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def add(name: str, ledger: Path) -> None:
    """Take over the measurements of a benchmark's ledger. Raises `ValueError` beyond `LIMIT`."""
    target = MEASURED / f"{name}.jsonl"
    known = read(target) | {key: rounded(value) for key, value in read(ledger).items()}
    lines = [json.dumps({"key": key, "value": known[key]}, ensure_ascii=False) for key in sorted(known)]
    content = "\n".join(lines) + "\n"
    if len(content.encode()) > LIMIT:
        raise ValueError(f"{target} would have more than {LIMIT} bytes.")
    target.write_text(content, encoding="utf-8")


def method_cells(known: Known) -> dict[tuple[str, str], dict[tuple[str, int], dict[str, float]]]:
    """By parent and method, and by size and number of classes, means of what `methods.py` has measured."""
    groups: dict[tuple[str, str], dict[tuple[str, int], list[dict[str, float]]]] = {}
    for key, value in known.items():
        parent, method, _seed, _fit, _test, size, labels = key.split("/")
        kinds = groups.setdefault((parent, method), {})
        kinds.setdefault((size, labels.count("+") + 1), []).append(value)
    return {
        case: {
            kind: {name: 100 * float(np.mean([one[name] for one in values])) for name in values[0]}
            for kind, values in kinds.items()
        }
        for case, kinds in sorted(groups.items())
    }


def protocol(known: Known) -> str:
    """What stands in the keys of `methods.py`: how many seeds, images and sets."""
    parts = [key.split("/") for key in known if "/costs/" not in key]
    seeds, fits, tests = ({part[place] for part in parts} for place in (2, 3, 4))
    sets = {count: len({part[6] for part in parts if part[6].count("+") + 1 == count}) for count in (5, 2, 1)}
    tested = " or ".join("all" if images == "None" else images for images in sorted(tests))
    return (
        f"Seeds: {len(seeds)}; {' or '.join(sorted(fits))} training images a class to choose by; {tested} "
        f"test images a class; {sets[5]} sets of five classes, {sets[2]} of two, {sets[1]} alone. Nothing is "
        "fitted or tuned; what is gone is made up for by the statistics of the modules. Seconds are "
        "wall-clock."
    )


def methods(known: Known) -> str:
    """What each method keeps, at its own size and at equal multiply-adds."""
    found = method_cells(known)
    if not found:
        return f"{NOT_MEASURED.capitalize()}.\n"
    own, equal = [], []
    counts = (10, 5, 2, 1)
    for (parent, method), kinds in found.items():
        seconds = [value["seconds"] / 100 for (size, _), value in kinds.items() if size == "costs"]
        own.append([parent, f"`{method}`", f"{seconds[0]:.0f} s" if seconds else "–"])
        for count in counts:
            value = kinds.get(("own", count))
            own[-1].append(
                " / ".join(f"{value[name]:.2f}" for name in ("accuracy", "parent", "random"))
                + f" at {value['flops']:.0f} %"
                if value
                else NOT_MEASURED
            )
        lost = [kinds.get((size, count)) for size in ("0.7", "0.5") for count in counts]
        cells = [f"{value['parent'] - value['accuracy']:.2f}" if value else "–" for value in lost]
        equal.append([parent, f"`{method}`", *cells])
    names = ("ten", "five", "two", "one alone")
    shares = [f"{name}, {share} %" for share in (70, 50) for name in names]
    pictures = [
        f"![Methods, {parent}](plots/methods-{parent.lower()}.svg)\n" for parent in method_series(known)
    ]
    return "\n".join(
        [
            "At its own size: top-1 (of one alone: balanced accuracy) / the whole parent restricted to the "
            "same classes / random channels of as many multiply-adds, at what share of them. "
            f"{protocol(known)}\n",
            markdown_table(("parent", "method", "decomposing", *names), own),
            f"At equal multiply-adds: points lost against the whole parent. {fewest_lost(found)}\n",
            markdown_table(("parent", "method", *shares), equal),
            *pictures,
        ]
    )


def fewest_lost(found: Mapping[tuple[str, str], Mapping[tuple[str, int], Mapping[str, float]]]) -> str:
    """Which method loses the fewest points where all have the same multiply-adds; what is not measured."""
    ahead: dict[str, list[str]] = {}
    names = {10: "ten", 5: "five", 2: "two", 1: "one alone"}
    for size in ("0.7", "0.5"):
        for count, name in names.items():
            lost = {
                (parent, method): value["parent"] - value["accuracy"]
                for (parent, method), kinds in found.items()
                if (value := kinds.get((size, count))) is not None
            }
            for parent in sorted({parent for parent, _ in lost}):
                best = min((points, method) for (each, method), points in lost.items() if each == parent)[1]
                ahead.setdefault(best, []).append(f"{name} at {100 * float(size):.0f} % ({parent})")
    text = "; ".join(f"`{method}` for {', '.join(cases)}" for method, cases in sorted(ahead.items()))
    said = [f"The fewest are lost by {text}."] if text else []
    said += [
        f"{parent}: {NOT_MEASURED}; `--parents {parent}` does, in several times the seconds of C10-R20."
        for parent in ("C10-R20", "C10-R56")
        if parent not in {each for each, _ in found}
    ]
    return " ".join(said)


def method_series(known: Known) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """By parent and method (multiply-adds, points lost) of two classes at each size."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for (parent, method), kinds in method_cells(known).items():
        points = [
            (value["flops"], value["parent"] - value["accuracy"])
            for (_, count), value in kinds.items()
            if count == 2
        ]
        if points:
            found.setdefault(parent, {})[method] = sorted(points)
    return found


def modular_parents(known: Known) -> str:
    """Modules of parents trained with and without `ModularityLoss`, means over the seeds of `modular.py`."""
    groups: dict[tuple[str, str], dict[tuple[str, str], list[dict[str, float]]]] = {}
    for key, value in known.items():
        _, parent, _seed, method, size, count = key.split("/")
        groups.setdefault((parent, method), {}).setdefault((size, count), []).append(value)
    if not groups:
        return f"{NOT_MEASURED.capitalize()}: `python benchmarks/modular.py --out DIR`.\n"
    sizes = ("own", "0.7", "0.5", "0.35")
    rows = []
    for (parent, method), found in sorted(groups.items(), reverse=True):
        row = [parent, f"`{method}`"]
        for size, count in ((size, count) for count in ("2", "5") for size in sizes):
            values = found.get((size, count))
            if values is None:
                row.append(NOT_MEASURED)
                continue
            mean = {name: 100 * float(np.mean([value[name] for value in values])) for name in values[0]}
            at = f" of {mean['parent']:.1f} at {mean['flops']:.0f} %" if size == "own" else ""
            row.append(f"{mean['accuracy']:.1f}{at}")
        rows.append(row)
    means = {
        (parent, method): 100 * float(np.mean([value["accuracy"] for value in found["0.35", "2"]]))
        for (parent, method), found in groups.items()
        if ("0.35", "2") in found
    }
    both = ", ".join(
        f"`{method}` {value:.1f} / {means['plain', method]:.1f}"
        for (parent, method), value in sorted(means.items())
        if parent == "modular" and ("plain", method) in means
    )
    words = f" Pairs at 35 %, trained for it / plainly: {both}." if both else ""
    seeds = len({key.split("/")[2] for key in known})
    names = [
        f"{count}, {'own size' if size == 'own' else f'{100 * float(size):.0f} %'}"
        for count in ("two", "five")
        for size in sizes
    ]
    return (
        "The demo's network on digits, trained plainly and with `modhub.training.ModularityLoss` (MODA's "
        "three losses, our weights); `activation` is MODA's own rule for modules, `random` the control. "
        "Top-1 of modules composed without images, at the method's own size of the whole parent restricted "
        "to the same classes and at what share of the multiply-adds, then at equal shares. "
        f"{many(seeds, 'seed')}, ten pairs, five sets of five.{words}\n\n"
        "    python benchmarks/modular.py --out DIR\n\n" + markdown_table(("parent", "method", *names), rows)
    )


def frontier_series(known: Known, parent: str) -> dict[str, list[tuple[float, float]]]:
    """(multiply-adds, loss in points) by what chose the channels; the mean over the pairs of each budget."""
    names = {"pair": "modhub, no data", "tuned": "modhub, tuned on 600 images", "random": "random channels"}
    groups: dict[tuple[str, str], list[dict[str, float]]] = {}
    for key, value in known.items():
        kind, name, budget, _ = [*key.split("/"), "", "", ""][:4]
        kind = "random" if kind.startswith("random-") else kind
        if kind in names and name == parent:
            groups.setdefault((names[kind], budget), []).append(value)
    series: dict[str, list[tuple[float, float]]] = {}
    for (name, _), values in sorted(groups.items()):
        share = 100 * float(np.mean([value["flops"] for value in values]))
        loss = 100 * float(np.mean([value["restricted"] - value["accuracy"] for value in values]))
        series.setdefault(name, []).append((share, loss))
    return {name: sorted(points) for name, points in series.items()}


def plot(path: Path, series: Mapping[str, list[tuple[float, float]]], x: str, y: str) -> None:
    """A line chart as SVG: the same numbers give the same bytes."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "modhub", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = pyplot.subplots(figsize=(5.6, 3.2), layout="constrained")
        for (name, points), style in zip(series.items(), cycle(("o-", "s-", "^--", "d:")), strict=False):
            axes.plot(*zip(*points, strict=True), style, label=name, markersize=4)
        axes.set(xlabel=x, ylabel=y)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def reuse_series(known: Known) -> dict[str, list[tuple[float, float]]]:
    """Wh after so many reuses, decomposition counted, beside training for each."""
    figures = energy_figures(known)
    if not {"decompose", "reuse"} <= figures.keys():
        return {}
    counts = range(11)
    series = {
        "modhub: decompose once, then compose": [
            (n, 1000 * (figures["decompose"] + n * figures["reuse"])) for n in counts
        ]
    }
    if "pair" in figures:
        series["train a network for each pair"] = [(n, 1000 * n * figures["pair"]) for n in counts]
    return series


def page(measured: Mapping[str, Known], version: str) -> str:
    """docs/evaluation.md."""
    paper, composition = measured.get("paper", {}), measured.get("composition", {})
    energy = [value["energy"] for value in cells(paper, "whole").values()]
    machine = sorted({f"{said['processor']}; {said['power_model']}" for said in energy})
    parts = [
        "# Evaluation\n",
        "Written by `python benchmarks/evaluation.py` from `benchmarks/measured`; every figure has the "
        "command that prints it. Images that choose masks, thresholds, epochs or methods are training "
        "images; test images measure only. Baselines are of the same run. A change is in percentage "
        "points.\n",
        *(
            f"Energy goes by CPU time, on {text}. Seconds are wall-clock, on a machine that others used: the "
            "CPU time of the same work differed by up to 40 % with what they did.\n"
            for text in machine
        ),
        "## The paper's protocol\n",
        "R. Pan, H. Rajan, *Decomposing Convolutional Neural Networks into Reusable and Replaceable "
        "Modules*, ICSE 2022, [arXiv 2110.07720](https://arxiv.org/abs/2110.07720). Its parents have no "
        "batch-norm and are weaker (85 to 87 %, 44 to 46 %, 32 to 33 % top-1): its figures stand beside "
        "ours for their direction.\n",
        "    python benchmarks/paper.py --data D --weights W --out DIR\n",
        tables(paper, findings(paper)),
        "CIFAR-100 ResNet-32 and -56, and the ResNets without batch-norm: weights are not shipped; "
        "`python benchmarks/train_parents.py --data D --out W` trains them, resumable.\n",
    ]
    series = {parent: frontier_series(composition, parent) for parent in ("C10-R20", "C10-R56")}
    parts += [
        "## Accuracy against multiply-adds\n",
        "Two of ten classes, cut to a budget: loss against the parent's logits restricted to them; more "
        "of it [below](#compositions-measured-so-far-and-missed), the mathematics in "
        "[composition.md](composition.md).\n",
        "    python benchmarks/composition.py --data D --weights W --out DIR --only pairs\n",
        *(
            f"![Loss against multiply-adds, {parent}](plots/frontier-{parent.lower()}.svg)\n"
            if points
            else f"{parent}: {NOT_MEASURED}.\n"
            for parent, points in series.items()
        ),
        "## Energy and break-even\n",
        "![Energy after so many reuses](plots/energy.svg)\n"
        if reuse_series(paper)
        else f"{NOT_MEASURED.capitalize()}: `python benchmarks/paper.py --only whole,reuse,energy`.\n",
        "## Methods\n",
        "    python benchmarks/methods.py --data D --weights W --out DIR\n",
    ]
    parts.append(methods(measured.get("methods", {})))
    parts += [
        "## Parents trained to be modular\n",
        modular_parents(measured.get("modular", {})),
        "## Peers\n",
        peer_tables.section(measured.get("peers", {})),
        (MEASURED / "composition.md").read_text(encoding="utf-8"),
        "## Citing\n",
        "[CITATION.cff](../CITATION.cff), or\n",
        f"```bibtex\n{BIBTEX.replace('VERSION', version)}```",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--add", nargs="+", default=[], metavar="NAME=FILE")
    for item in parser.parse_args().add:
        name, _, ledger = item.partition("=")
        add(name, Path(ledger))
    measured = {path.stem: read(path) for path in sorted(MEASURED.glob("*.jsonl"))}
    from modhub import __version__

    for parent in ("C10-R20", "C10-R56"):
        if series := frontier_series(measured.get("composition", {}), parent):
            plot(PLOTS / f"frontier-{parent.lower()}.svg", series, "multiply-adds (%)", "loss (points)")
    for parent, series in method_series(measured.get("methods", {})).items():
        plot(PLOTS / f"methods-{parent.lower()}.svg", series, "multiply-adds (%)", "loss (points)")
    if series := reuse_series(measured.get("paper", {})):
        plot(PLOTS / "energy.svg", series, "reuses", "energy (Wh)")
    PAGE.write_text(page(measured, __version__), encoding="utf-8")


if __name__ == "__main__":
    main()
