"""A vision transformer of two blocks with four heads each, as timm builds it."""

from __future__ import annotations

import timm
import torch

__all__ = ["small_vit"]


def small_vit(classes: int, *, channels: int, size: int, patch: int, width: int) -> torch.nn.Module:
    """For images (`channels`, `size`, `size`) in patches of `patch`, with features of `width`."""
    module: torch.nn.Module = timm.create_model(
        "vit_tiny_patch16_224",
        num_classes=classes,
        in_chans=channels,
        img_size=size,
        patch_size=patch,
        embed_dim=width,
        depth=2,
        num_heads=4,
        global_pool="avg",
    )
    return module
