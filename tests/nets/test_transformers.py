"""Attention, windows, tokens: small members of the families of transformers and hybrids become data."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import timm
import torch
from timm.models.maxxvit import MaxxVit, MaxxVitCfg
from timm.models.mlp_mixer import MlpMixer
from timm.models.mobilevit import MobileVitBlock

from modhub.errors import ManifestError
from modhub.importing import import_module
from modhub.nets import (
    ChannelGroup,
    Graph,
    Network,
    Runner,
    channel_space,
    cost,
    slice_network,
    split_head,
)
from tests.support.small_nets import CLASSES, random_masks, slice_difference, stored

TOKENS = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
WINDOWS = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (2,), "num_heads": (2,)}
MAXVIT = MaxxVitCfg(embed_dim=(32,), depths=(1,), block_type=("M",), stem_width=8, head_hidden_size=None)


def _mobilevit(num_classes: int) -> torch.nn.Module:
    block = MobileVitBlock(8, transformer_dim=16, transformer_depth=1, num_heads=2, patch_size=2)
    layers = [torch.nn.Conv2d(3, 8, 4, 4), block, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(8, num_classes))


FAMILIES: dict[str, tuple[str | Callable[..., torch.nn.Module], int, dict[str, Any]]] = {
    "vit with registers": ("vit_tiny_patch16_224", 32, {**TOKENS, "reg_tokens": 2, "init_values": 1.0}),
    "deit, distilled": ("deit_tiny_distilled_patch16_224", 32, TOKENS),
    "eva, rotary positions": ("vit_tiny_patch16_dinov3_qkvb", 32, {**TOKENS, "embed_dim": 24}),
    "beit, relative positions": ("beit_base_patch16_224", 32, TOKENS),
    "cait, talking heads": (
        "cait_xxs24_224",
        32,
        {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2, "depth_token_only": 1},
    ),
    "xcit, attention between channels": (
        "xcit_nano_12_p16_224",
        32,
        {**TOKENS, "patch_size": 16, "cls_attn_layers": 1},
    ),
    "swin": ("swin_tiny_patch4_window7_224", 32, WINDOWS),
    "swin 2": ("swinv2_tiny_window8_256", 32, {**WINDOWS, "depths": (1,)}),
    "levit": (
        "levit_128s",
        64,
        {"img_size": 64, "embed_dim": (16, 24), "key_dim": 8, "num_heads": (2, 2), "depth": (1, 1)},
    ),
    "mixer": (MlpMixer, 32, {"img_size": 32, "patch_size": 8, "num_blocks": 1, "embed_dim": 16}),
    "maxvit, windows and grids": (MaxxVit, 32, {"img_size": 32, "cfg": MAXVIT}),
    "mobilevit, patches unfolded": (_mobilevit, 32, {}),
}
"""One block of each kind; the networks themselves are in benchmarks/zoo.py."""


def settled(name: str | Callable[..., torch.nn.Module], arguments: dict[str, Any]) -> torch.nn.Module:
    """With no parameter left as it begins: a token of zeros would hide what goes wrong with it."""
    torch.manual_seed(0)
    build = partial(timm.create_model, name) if isinstance(name, str) else name
    module: torch.nn.Module = build(num_classes=CLASSES, **arguments).eval()
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if "token" in key or "pos" in key:
                parameter.normal_(0, 0.5)
            elif parameter.dim() > 1:
                parameter.normal_(0, (parameter.shape[0] / parameter.numel()) ** 0.5)
            else:
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    return module


@cache
def imported(family: str) -> tuple[torch.nn.Module, Network]:
    name, size, arguments = FAMILIES[family]
    module = settled(name, arguments)
    return module, import_module(module, (3, size, size))


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str) -> None:
    module, network = imported(family)
    network = stored(network)
    size = network.graph.input_shape[1]
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = module(images)
        assert float((logits[0] - logits[1]).abs().max()) > 1e-4
        assert torch.allclose(Runner(network)(images), logits, atol=1e-5, rtol=1e-4)
        trunk, head = split_head(network)
        assert head.weight.shape[0] == CLASSES
        assert torch.allclose(Runner(head.join(trunk))(images), logits, atol=1e-5, rtol=1e-4)
        space = channel_space(trunk)
        for mask in random_masks(space)[:1]:
            assert slice_difference(trunk, mask, space, images) < 1e-4


def groups_of(family: str) -> dict[str, ChannelGroup]:
    trunk, _ = split_head(imported(family)[1])
    return {group.name: group for group in channel_space(trunk).groups}


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("vit with registers", "blocks.0.attn.qkv"),
        ("deit, distilled", "blocks.0.attn.qkv"),
        ("eva, rotary positions", "blocks.0.attn.linear"),
        ("beit, relative positions", "blocks.0.attn.linear"),
        ("cait, talking heads", "blocks.0.attn.qkv"),
        ("cait, talking heads", "blocks.0.attn.proj_l"),
        ("cait, talking heads", "blocks_token_only.0.attn.q"),
        ("xcit, attention between channels", "blocks.0.attn.qkv"),
        ("swin", "layers.0.blocks.1.attn.qkv"),
        ("swin 2", "layers.0.blocks.0.attn.linear"),
        ("levit", "stages.0.blocks.0.attn.qkv.linear"),
        ("mobilevit, patches unfolded", "1.transformer.0.attn.qkv"),
    ],
)
def test_two_heads_are_a_group_of_two(family: str, name: str) -> None:
    group = groups_of(family)[name]
    assert (group.size, group.reason) == (2, None)


def test_hidden_neurons_and_the_embedding_can_go() -> None:
    groups = groups_of("vit with registers")
    assert groups["blocks.0.mlp.fc1"].reason is None
    assert groups["patch_embed.proj"].reason is None


def test_a_head_takes_query_key_value_and_what_reads_it_along() -> None:
    trunk, _ = split_head(imported("vit with registers")[1])
    space = channel_space(trunk)
    mask = space.full_mask()
    mask[space.of("blocks.0.attn.qkv")[0]] = False
    sliced = slice_network(trunk, mask, space=space)
    shapes = {role: tuple(t.shape) for role, t in sliced.of(sliced.graph.node["blocks.0.attn.qkv"]).items()}
    assert shapes == {"weight": (24, 16), "bias": (24,)}
    assert sliced.graph.node["blocks.0.attn.proj"].attributes["in_features"] == 8
    # 19 tokens of the one head left, of 8 features: scores, and their sums of values.
    assert cost(sliced).per_node["blocks.0.attn.attention"] == 2 * 19 * 19 * 8


def test_only_graphs_that_need_it_are_of_the_second_version() -> None:
    graph = imported("vit with registers")[1].graph
    assert graph.to_dict()["schema_version"] == 2
    conv = import_module(torch.nn.Conv2d(3, 4, 3), (3, 8, 8)).graph
    assert conv.to_dict()["schema_version"] == 1
    with pytest.raises(ManifestError, match=r"operator of version 2, but graph\.json says schema version 1"):
        Graph.from_dict({**graph.to_dict(), "schema_version": 1})


def test_products_of_values_are_counted() -> None:
    network = imported("vit with registers")[1]
    # 19 tokens of 2 heads of 8 features each: scores, and their sums of values.
    assert cost(network).per_node["blocks.0.attn.attention"] == 2 * (19 * 19 * 8 + 19 * 19 * 8)


def place(*nodes: dict[str, Any], shape: tuple[int, int, int] = (3, 8, 8)) -> dict[str, Any]:
    return {
        "schema_version": 2,
        "input": "input",
        "input_shape": list(shape),
        "nodes": [{"attributes": {}, "tensors": {}, **node} for node in nodes],
        "output": nodes[-1]["name"],
    }


def node(name: str, op: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "inputs": list(inputs), "attributes": attributes}


TOO_MANY = node("tokens", "reshape", "input", shape=[1 << 15, 96])
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "scores beyond memory": (
        place(
            TOO_MANY,
            node("a", "attention", "tokens", "tokens", "tokens", scale=1.0),
            shape=(96, 256, 128),
        ),
        "The node 'a' (attention) needs 1,080,033,280 numbers at a time for one image; 536,870,912 are "
        "allowed.",
    ),
    "a product beyond every value": (
        place(
            TOO_MANY,
            node("turned", "permute", "tokens", dims=[1, 0]),
            node("m", "matmul", "tokens", "turned"),
            shape=(96, 256, 128),
        ),
        "The node 'm' (matmul) has the shape [32768, 32768], more than 134,217,728 numbers.",
    ),
    "work without end": (
        place(
            node("t", "reshape", "input", shape=[4096, 4096]),
            *(node(f"m{at}", "matmul", f"m{at - 1}" if at else "t", "t") for at in range(300)),
            shape=(4096, 64, 64),
        ),
        "Up to the node 'm256' (matmul) one image takes 17,660,905,521,152 multiply-adds; 17,592,186,044,416 "
        "are allowed.",
    ),
    "values that are all kept": (
        place(
            *(node(f"r{at}", "relu", "input") for at in range(8)),
            node("sum", "add", *(f"r{at}" for at in range(8))),
            shape=(128, 1024, 1024),
        ),
        "The node 'r3' (relu) needs 671,088,640 numbers at a time for one image; 536,870,912 are allowed.",
    ),
    "queries that do not fit": (
        place(
            node("q", "reshape", "input", shape=[24, 8]),
            node("k", "reshape", "input", shape=[8, 24]),
            node("a", "attention", "q", "k", "k", scale=1.0),
        ),
        "The node 'a' (attention) compares [24, 8] and [8, 24].",
    ),
    "a bias of other scores": (
        place(
            node("q", "reshape", "input", shape=[24, 8]),
            node("a", "attention", "q", "q", "q", "q", scale=1.0),
        ),
        "The node 'a' (attention) reads values that do not fit each other, [24, 24] and [24, 8].",
    ),
    "two values": (
        place(node("a", "attention", "input", "input", scale=1.0)),
        "The node 'a' (attention) reads query, key, value and at most a bias, not 2 values.",
    ),
    "a scale that is no number": (
        place(node("a", "attention", "input", "input", "input", scale=float("inf"))),
        "The node 'a' (attention) has an attribute 'scale' that is inf; it should be -1e+30 to 1e+30.",
    ),
    "a product of rows": (
        place(
            node("q", "reshape", "input", shape=[192]),
            node("m", "matmul", "q", "q"),
        ),
        "The node 'm' (matmul) multiplies [192] and [192].",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_shapes_are_refused_before_memory_is_taken(case: str) -> None:
    document, message = HOSTILE[case]
    with pytest.raises(ManifestError) as caught:
        Graph.from_dict(document)
    assert caught.value.message == message
