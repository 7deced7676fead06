"""docs/heads.md, line by line: two publishers and a composer on a small random backbone."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.console import Console

PAGE = Path(__file__).parents[2] / "docs" / "heads.md"
BACKBONE = """
import torch
from torch import nn


def Backbone():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        ).eval()
"""
STRIPES = {"zebra": (2, 0), "horse": (0, 2), "forklift": (4, 4), "lorry": (1, 1)}


def _draw(folder: Path, label: str, count: int = 16) -> None:
    (folder / label).mkdir(parents=True)
    draw, (across, along) = np.random.default_rng(len(label)), STRIPES[label]
    y, x = np.mgrid[:16, :16]
    for number in range(count):
        wave = np.sin((across * x + along * y) * 0.6 + draw.uniform(0, 6))
        pixels = 128 + 70 * wave[..., None] + draw.normal(0, 20, (16, 16, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / label / f"{number}.png")


def test_the_tutorial(tmp_path, monkeypatch, capsys) -> None:
    console = Console(tmp_path, monkeypatch, capsys)
    console.go(tmp_path)
    (tmp_path / "backbone.py").write_text(BACKBONE)
    for person, labels in {"anna": ("zebra", "horse"), "ben": ("forklift", "lorry")}.items():
        for label in labels:
            _draw(tmp_path / person, label)
    lines = re.findall(r"^    (modhub .+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 9
    for line in lines:
        command, _, then = line.partition(" && ")
        result = console.good(*shlex.split(command)[1:])
        if " search " in command:
            assert {"anna/animals/zebra", "ben/vehicles/forklift"} <= set(result.out.split())
        if then:
            console.go(tmp_path / then.removeprefix("cd "))
    build = json.loads((tmp_path / "yard" / "build" / "build.json").read_text())
    assert build["labels"] == ["zebra", "forklift"]
    assert len(build["passes"]) == 1
    modules = console.good("search", "--trunk", "backbone.py:Backbone", "--json").json["modules"]
    assert len({module["trunk"] for module in modules}) == 1
    trunk = modules[0]["trunk"]
    assert console.good("search", "--trunk", trunk[:12], "-q").out == console.good("search", "-q").out
    assert console.good("search", "--trunk", str(tmp_path / "zebra"), "-q").out.count("\n") == 2
    assert console.good("search", "--trunk", "0" * 12, "-q").out == ""
    for label in ("zebra", "forklift"):
        image = next((tmp_path / ("anna" if label == "zebra" else "ben") / label).glob("*.png"))
        assert console.good("predict", "build", str(image), "--json").json["images"][0]["label"] == label
