"""modhub decompose"""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from modhub.formatting import percent, size
from modhub.licences import licence_expression
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

_LARGEST = 8192


def _numbers(text: str) -> tuple[float, ...]:
    """0.485,0.456,0.406"""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"expected numbers such as 0.5,0.5,0.5, got '{text}'.") from None


def _size(text: str) -> tuple[int, ...]:
    """3x32x32, 32x32 or 32"""
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 3 or not all(part.isdigit() and 0 < int(part) <= _LARGEST for part in parts):
        raise ValueError(
            f"expected a size such as 224, 32x32 or 1x28x28, at most {_LARGEST} per side, got '{text}'."
        )
    numbers = tuple(int(part) for part in parts)
    return numbers * 2 if len(numbers) == 1 else numbers


def _range(text: str) -> tuple[float, float]:
    """0,255"""
    numbers = _numbers(text)
    if len(numbers) != 2 or numbers[0] >= numbers[1]:
        raise ValueError(f"expected two rising numbers such as 0,255, got '{text}'.")
    return numbers[0], numbers[1]


def _resize(text: str) -> int | tuple[int, int]:
    """256 or 256x256"""
    numbers = _size(text)
    if len(numbers) > 2:
        raise ValueError(f"expected a size such as 256 or 256x256, got '{text}'.")
    return (numbers[0], numbers[1]) if "x" in text.lower() else numbers[0]


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"expected KEY=VALUE, got '{text}'.")
    return key, value


@click.command("decompose", short_help="Decompose a trained CNN classifier into class modules.")
@click.argument("parent")
@data_options(split="train", required=False)
@click.option(
    "--no-data",
    is_flag=True,
    help="Make modules without images: they keep all channels, and nothing is measured.",
)
@click.option(
    "--fit-head",
    is_flag=True,
    help="Fit a linear head to the classes of DATA on the features of PARENT, which need not know them.",
)
@click.option(
    "--head",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A head for the features of PARENT, a .safetensors file: one row per label, by name, or weight and "
    "bias, with --labels.",
)
@target_option
@click.option(
    "--weights",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Weights of the parent: .safetensors, or what torch.save wrote (.pt, .pth, .ckpt, .bin), of which "
    "only tensors are read.",
)
@click.option(
    "--arg",
    "arguments",
    multiple=True,
    callback=converted(_pair),
    metavar="KEY=VALUE",
    help="Argument of the parent's callable. Repeatable.",
)
@click.option(
    "--method",
    default="relevance",
    show_default=True,
    help="A name that `modhub methods` lists, or FILE.py:CLASS (executes that file).",
)
@click.option(
    "--method-option",
    "method_options",
    multiple=True,
    callback=converted(_pair),
    metavar="KEY=VALUE",
    help="Parameter of the method. Repeatable.",
)
@click.option(
    "--labels",
    multiple=True,
    help="Labels in the order of the parent's outputs: a,b,c or a file, one per line; imagenet-1k for "
    "ImageNet's. Repeatable: then each is one label or a file.",
)
@click.option(
    "--only",
    multiple=True,
    help="Make modules of these classes only: a,b,c or a file, one per line. Repeatable. DATA must hold them "
    "and at least one other class.",
)
@click.option("--name", help="Name of the parent. Default: from PARENT.")
@click.option(
    "--input-size",
    callback=converted(_size),
    metavar="[CxHx]W",
    help="Input size in pixels: 224, 32x32 or 1x28x28. Default: from the model or DATA.",
)
@click.option(
    "--mean",
    callback=converted(_numbers),
    metavar="A,B,…",
    help="Mean per channel for normalisation, of values in the value range.",
)
@click.option(
    "--std",
    callback=converted(_numbers),
    metavar="A,B,…",
    help="Standard deviation per channel for normalisation, of values in the value range.",
)
@click.option(
    "--value-range",
    callback=converted(_range),
    metavar="LOW,HIGH",
    help="Values of black and white before normalisation. Default: 0,1.",
)
@click.option(
    "--resize",
    callback=converted(_resize),
    metavar="[Hx]W",
    help="Resize images before cropping: 256 is the shorter side, 256x256 both. Default: from the model.",
)
@click.option(
    "--crop/--no-crop",
    default=None,
    help="Cut the input size out of the resized image's centre. Default: from the model, or with --resize.",
)
@click.option(
    "--interpolation",
    type=click.Choice(["nearest", "bilinear", "bicubic"]),
    help="Filter for resizing. Default: from the model, or bilinear.",
)
@click.option(
    "--license",
    callback=converted(licence_expression),
    help="Licence of the modules, an SPDX expression such as mit, or LicenseRef-NAME.",
)
@click.option("--dataset", help="Name of the data set the parent was trained on. Default: from DATA.")
@click.option(
    "--max-loss",
    type=float,
    default=0.005,
    show_default=True,
    metavar="FRACTION",
    help="Maximum loss of balanced accuracy of a module used alone.",
)
@click.option(
    "--images-per-class",
    type=click.IntRange(2),
    default=300,
    show_default=True,
    help="Maximum images per class used for channel selection.",
)
@seed_option
@date_option
@click.option(
    "--measure",
    metavar="DATA",
    help="Images the parent was not trained on, for the metrics recorded in the modules. Default: held-out "
    "images of DATA.",
)
@click.option(
    "--form",
    type=click.Choice(["delta", "standalone"]),
    default="delta",
    show_default=True,
    help="delta: a mask on the shared trunk; standalone: a separate copy of the kept channels.",
)
@click.option(
    "--examine",
    type=click.IntRange(1),
    metavar="N",
    help="Validate the loss on at most N classes; the rest reuse the threshold found. Default: all classes, "
    "or 16 for a large network with many classes.",
)
@device_option
@force_option
@reporting
def command(
    parent: str,
    data: str | None,
    no_data: bool,
    fit_head: bool,
    target: Path,
    arguments: tuple[tuple[str, str], ...],
    method_options: tuple[tuple[str, str], ...],
    labels: tuple[str, ...],
    only: tuple[str, ...],
    measure: str | None,
    form: str,
    force: bool,
    out: Out,
    **options: Any,
) -> None:
    """Decompose a trained CNN classifier into one module per class.

    PARENT is modhub:NAME, torchvision:NAME, timm:NAME, hf:REPO, onnx:FILE, FILE.py:CALLABLE (executes that
    file), a directory with graph.json, weights.safetensors and parent.json, or one with modules of it. DATA
    holds images of its classes, preferably those it was trained on.

    With --no-data modules of one parent compose exactly, but their recall, precision and thresholds are
    unknown. To measure them later, decompose their directory again, with DATA, and push a new release.

    With --fit-head PARENT is any backbone: its own classes, if it has some, are left out, and a head for
    those of DATA takes their place. Such modules compose in one pass with any others on the same backbone.

    After an interruption, the same command resumes the work. To use several processes:

    \b
    torchrun --nproc-per-node 2 -m modhub.decompose PARENT --data DATA -o DIR

    \b
    Example: modhub decompose modhub:resnet20 --weights r20.safetensors --data cifar10:data -o out/r20
    """
    from modhub.api.decompose import decompose_to
    from modhub.decomposition import DecomposeOptions

    if no_data == (data is not None):
        raise click.UsageError("Give either --data DATA or --no-data.")
    if fit_head and data is None:
        raise click.UsageError("--fit-head needs --data DATA.")
    settings = DecomposeOptions(
        fit_head=fit_head,
        arguments=dict(arguments),
        method_options=dict(method_options),
        labels=_labels(labels),
        only=[name for text in only for name in _lines(text) or [text]] or None,
        measure=measure,
        **options,
    )
    # User-defined parents and methods may print; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        result = decompose_to(target, parent, data, settings, form=form, force=force, reporter=out.reporter())

    def human() -> None:
        rows = [
            [
                module.label,
                percent(module.kept_channels_fraction),
                percent(module.recall),
                percent(module.precision),
                shown_to(module.sample),
                size(module.bytes),
            ]
            for module in result.modules
        ]
        columns = ["module", "channels kept", "recall", "precision", "measured on", "size"]
        out.table(columns, rows, right=(1, 2, 3, 5))
        memory = f", peak memory {size(result.peak_bytes)}" if result.peak_bytes else ""
        source = f"from {result.images:,} images" if result.images else "without images"
        out.line(
            f"{many(len(rows), 'module', 'modules')} of {result.parent} {source} "
            f"in {result.elapsed_seconds:.1f} s{memory}: {target}"
        )

    out.emit(result.to_dict(), human=human, quiet=[str(target)])
    if result.misread is not None:
        out.reporter().warn(f"{result.misread} The modules in '{target}' should not be pushed.")
        if not force:
            sys.exit(1)
        return
    if measure is None and any(module.sample for module in result.modules):
        out.note(
            "These metrics were measured on held-out images of DATA, which the parent may have been trained "
            "on. Use --measure DATA to measure on other images; search ranks modules measured so first."
        )
    out.next(f"modhub push {shlex.quote(str(target))} NAMESPACE/NAME --version 1.0.0")


def _labels(texts: tuple[str, ...]) -> list[str] | None:
    """The parts of a,b,c where that is all, else one label a text; of a file its lines."""
    if len(texts) == 1 and _lines(texts[0]) is None:
        return [part.strip() for part in texts[0].split(",") if part.strip()]
    return [label for text in texts for label in _lines(text) or [text.strip()]] or None


def _lines(text: str) -> list[str] | None:
    """The lines of a text file without blank ones, None where `text` names no file."""
    try:
        content = Path(text).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise click.UsageError(f"'{text}' is not a UTF-8 text file.") from None
    except (OSError, ValueError):
        return None
    return [line.strip() for line in content.split("\n") if line.strip()]
