"""modhub decompose"""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path

import click

from modhub.formatting import percent, size
from modhub_cli.options import (
    converted,
    data_options,
    date_option,
    device_option,
    force_option,
    reporting,
    seed_option,
    target_option,
)
from modhub_cli.output import Out, many, shown_to

__all__ = ["command"]

_LARGEST = 8192


def _numbers(text: str) -> tuple[float, ...]:
    """0.485,0.456,0.406"""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"'{text}' is not a list of numbers such as 0.5,0.5,0.5") from None


def _size(text: str) -> tuple[int, ...]:
    """3x32x32, 32x32 or 32"""
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 3 or not all(part.isdigit() and 0 < int(part) <= _LARGEST for part in parts):
        raise ValueError(f"'{text}' is not a size such as 224, 32x32 or 1x28x28, at most {_LARGEST} a side")
    numbers = tuple(int(part) for part in parts)
    return numbers * 2 if len(numbers) == 1 else numbers


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"'{text}' is not key=value")
    return key, value


@click.command("decompose", short_help="Decompose a trained CNN classifier into class modules.")
@click.argument("parent")
@data_options(split="train")
@target_option
@click.option("--weights", type=click.Path(path_type=Path, dir_okay=False), help="A .safetensors file.")
@click.option(
    "--arg",
    "arguments",
    multiple=True,
    callback=converted(_pair),
    metavar="K=V",
    help="For the callable.",
)
@click.option(
    "--method",
    default="relevance",
    show_default=True,
    help="relevance, concern, or FILE.py:CLASS (which runs that file); see docs/writing-a-method.md.",
)
@click.option("--method-option", "method_options", multiple=True, callback=converted(_pair), metavar="K=V")
@click.option("--labels", help="The parent's classes in the order of its outputs: a,b,c or a file of lines.")
@click.option(
    "--only",
    help="Make modules of these classes only: a,b,c. DATA may then lack other classes of the parent, "
    "but not all of them.",
)
@click.option("--name", help="The parent's name. Default: PARENT's.")
@click.option(
    "--input-size", callback=converted(_size), help="[C x] H x W. Default: the model's or the data's."
)
@click.option("--mean", callback=converted(_numbers), help="Per channel, of values in [0, 1].")
@click.option("--std", callback=converted(_numbers), help="Per channel, of values in [0, 1].")
@click.option("--license", "licence", help="The modules' licence, an SPDX id such as mit.")
@click.option("--dataset", help="What the parent was trained on. Default: DATA's name.")
@click.option(
    "--max-loss",
    type=float,
    default=0.005,
    show_default=True,
    help="The balanced accuracy that a module alone may lose, as a fraction.",
)
@click.option(
    "--images-per-class",
    type=click.IntRange(2),
    default=300,
    show_default=True,
    help="How many have a say in what is kept, at most.",
)
@seed_option
@date_option
@click.option(
    "--measure",
    metavar="DATA",
    help="Images the parent was not trained on, to record each module's figures with. Default: DATA's own.",
)
@click.option(
    "--form",
    type=click.Choice(["delta", "standalone"]),
    default="delta",
    show_default=True,
    help="On the shared trunk, or each with its own channels cut out.",
)
@click.option(
    "--examine",
    type=click.IntRange(1),
    help="Check the loss of so many classes only; the others follow them. Default: all, or 16 where a large "
    "network has many classes.",
)
@device_option
@force_option
@reporting
def command(
    parent: str,
    data: str,
    split: str,
    target: Path,
    weights: Path | None,
    arguments: tuple[tuple[str, str], ...],
    method: str,
    method_options: tuple[tuple[str, str], ...],
    labels: str | None,
    only: str | None,
    name: str | None,
    input_size: tuple[int, ...] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    licence: str | None,
    dataset: str | None,
    max_loss: float,
    images_per_class: int,
    seed: int,
    date: str | None,
    measure: str | None,
    form: str,
    examine: int | None,
    device: str,
    force: bool,
    out: Out,
) -> None:
    """Decompose a trained CNN classifier into one module per class.

    Interrupted, it goes on where it was when the same command is given again. Several processes share the
    work with: torchrun --nproc-per-node 2 -m modhub.decompose PARENT --data DATA -o DIR

    PARENT is modhub:NAME, torchvision:NAME, timm:NAME, hf:REPO, FILE.py:CALLABLE (which runs that file), or
    a directory with graph.json, weights.safetensors and parent.json. DATA are images of its classes, best
    those it was trained on.

    Example: modhub decompose modhub:resnet20 --weights r20.safetensors --data cifar10:data -o out/r20
    """
    from modhub.api.making import DecomposeSettings, decompose_to

    settings = DecomposeSettings(
        split=split,
        weights=weights,
        arguments=dict(arguments),
        method=method,
        method_options=dict(method_options),
        labels=_names(labels),
        only=_names(only),
        name=name,
        input_size=input_size,
        mean=mean,
        std=std,
        license=licence,
        dataset=dataset,
        max_loss=max_loss,
        images_per_class=images_per_class,
        seed=seed,
        date=date,
        measure=measure,
        examine=examine,
        device=device,
    )
    # The user's own files may print; stdout is for what this command says.
    with contextlib.redirect_stdout(sys.stderr):
        made = decompose_to(target, parent, data, settings, form=form, force=force, reporter=out.reporter())

    def human() -> None:
        rows = [
            [
                module["label"],
                percent(module["kept_channels_fraction"]),
                percent(module["recall"]),
                percent(module["precision"]),
                shown_to(module["sample"]),
                size(module["bytes"]),
            ]
            for module in made["modules"]
        ]
        columns = ["module", "channels kept", "recall", "precision", "measured on", "size"]
        out.table(columns, rows, right=(1, 2, 3, 5))
        memory = f", at most {size(made['peak_bytes'])} of memory" if made["peak_bytes"] else ""
        out.line(
            f"{many(len(rows), 'module', 'modules')} of {made['parent']} from {made['images']:,} images "
            f"in {made['elapsed_seconds']:.1f} s{memory}: {target}"
        )

    out.emit(made, human=human, quiet=[str(target)])
    if measure is None and any(module["sample"] for module in made["modules"]):
        out.note(
            "These figures are of images kept aside while the modules were made; the parent may know "
            "them by heart. --measure DATA takes others, and search puts modules measured so first."
        )
    out.next(f"modhub push {shlex.quote(str(target))} NAMESPACE/NAME --version 1.0.0")


def _names(text: str | None) -> list[str] | None:
    """a,b,c, or the lines of a file."""
    if text is None:
        return None
    if "," not in text and Path(text).is_file():
        return [line.strip() for line in Path(text).read_text(encoding="utf-8").splitlines() if line.strip()]
    return [part.strip() for part in text.split(",") if part.strip()]
