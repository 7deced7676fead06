"""How many configurations of timm, torchvision and transformers agree with their source to the pixel.

    .venv/bin/python benchmarks/preprocessing.py

Each configuration prepares a picture of 3:2 and one of 1:2 (coarse noise) by the source's own code and by
modhub's. They agree when no pixel differs by more than 2.5 levels of 255, which is what rounding between the
two passes of a resize makes; a shift by one pixel is far more. Nothing is downloaded.
"""

from __future__ import annotations

import collections
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torchvision
import transformers
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg

from modhub.data import as_batch
from modhub.data.preprocessing import Preprocess
from modhub.errors import ParentError
from modhub.manifest import InputSpec
from modhub.parents.processors import processor_input
from modhub.parents.timm import timm_input
from modhub.parents.torchvision import preset_input

LEVELS = 2.5
CLASSES = ("Beit", "Bit", "CLIP", "ConvNext", "DeiT", "EfficientNet", "Levit", "MobileNetV1", "MobileNetV2")
CLASSES += ("PoolFormer", "Pvt", "Siglip", "ViT", "MobileViT", "Segformer", "Perceiver", "Flava", "TextNet")


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 255, (height // 12, width // 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


PICTURES = (picture(498, 332), picture(211, 422))


def verdict(spec: Callable[[], InputSpec], source: Callable[[Image.Image], Any]) -> str:
    try:
        said = spec()
    except ParentError as error:
        return f"refused: {error.message.partition(' asks for ')[2] or error.message.partition(' says ')[2]}"
    off = 0.0
    for image in PICTURES:
        mine, theirs = Preprocess(said)(as_batch([np.asarray(image)]))[0].numpy(), np.asarray(source(image))
        if mine.shape != theirs.shape:
            return f"differs in shape: {mine.shape[1:]}, not {theirs.shape[1:]}"
        low, high = said.value_range
        scale = np.array(said.std)[:, None, None] * 255 / (high - low)
        off = max(off, float(np.abs((mine - theirs) * scale).max()))
    return "agrees" if off < LEVELS else "differs"


def of_timm() -> collections.Counter[str]:
    """Every published configuration; those alike are prepared once."""
    known: dict[tuple[Any, ...], str] = {}
    counts: collections.Counter[str] = collections.Counter()
    for name in timm.list_pretrained():
        config = get_pretrained_cfg(name).to_dict()
        data = resolve_data_config({}, config)
        key = tuple(data.values())
        if key not in known:
            known[key] = verdict(lambda c=config, n=name: timm_input(c, n), create_transform(**data))
        counts[known[key]] += 1
    return counts


def of_torchvision() -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            preset = weights.transforms()
            counts[verdict(lambda p=preset: preset_input(p), preset)] += 1
    return counts


def of_transformers() -> collections.Counter[str]:
    """Each class with its own defaults, at smaller sizes, cropping and not."""
    counts: collections.Counter[str] = collections.Counter()
    changes: list[dict[str, Any]] = [{}, {"size": 224, "crop_size": 224}, {"size": 256, "crop_size": 224}]
    changes += [{"size": 224, "do_center_crop": False}, {"do_normalize": False, "resample": 2}]
    changes += [{"size": {"height": 224, "width": 224}, "resample": 0}, {"do_rescale": False}]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text('{"model_type": "resnet"}')
        for name in CLASSES:
            for change in changes:
                config = {"image_processor_type": f"{name}ImageProcessor", **change}
                Path(folder, "preprocessor_config.json").write_text(json.dumps(config))
                try:
                    processor = transformers.AutoImageProcessor.from_pretrained(folder)
                    ready = [processor(image, return_tensors="np")["pixel_values"][0] for image in PICTURES]
                except Exception:
                    counts["refused by transformers itself"] += 1
                    continue
                if getattr(processor, "do_flip_channel_order", False):
                    # The network turns the channels about.
                    ready = [pixels[::-1] for pixels in ready]
                prepared = dict(zip(map(id, PICTURES), ready, strict=True))
                counts[
                    verdict(
                        lambda c=config: processor_input(c, {"model_type": "resnet"}, "a/net"),
                        lambda image, p=prepared: p[id(image)],
                    )
                ] += 1
    return counts


def main() -> None:
    transformers.logging.set_verbosity_error()
    for library, count in (
        ("timm", of_timm),
        ("torchvision", of_torchvision),
        ("transformers", of_transformers),
    ):
        counts = count()
        print(f"{library}: {counts['agrees']} of {sum(counts.values())} agree to the pixel")
        for reason, number in counts.most_common():
            if reason != "agrees":
                print(f"    {number:5}  {reason}")


if __name__ == "__main__":
    main()
