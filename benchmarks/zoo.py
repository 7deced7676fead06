"""Every classifier of torchvision and its relatives in timm, through modhub and out again.

Each network (random weights; batch-norm statistics from one random batch) is imported, sliced by three random
masks (each keeps another share of every channel group: 25, 50 and 75 %) and compared with the masked dense
network, and one sliced network is exported to ONNX and compared in ONNX Runtime.

    python benchmarks/zoo.py                            measure what is missing, print the table
    python benchmarks/zoo.py --only resnet18 vgg11
    python benchmarks/zoo.py --seconds 600              start no further network after ten minutes
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from ledger import Ledger
from modhub.errors import ModhubError
from modhub.importing import import_module
from modhub.nets import (
    ChannelSpace,
    Network,
    Runner,
    channel_space,
    cost,
    mask_network,
    slice_network,
    split_head,
)

TRANSFORMERS = ("vit_", "swin_", "maxvit")
TIMM = (
    "resnet18",
    "resnet26d",
    "seresnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "vgg11_bn",
    "densenet121",
    "inception_v3",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "mnasnet_100",
    "efficientnet_b0",
    "tf_efficientnet_b0",
    "tf_efficientnetv2_b0",
    "regnetx_002",
    "regnety_002",
    "convnext_atto",
    "convnextv2_atto",
    "resnetv2_50",
    "res2net50_26w_4s",
    "ecaresnet26t",
    "skresnet18",
    "cspresnet50",
    "darknet53",
    "vovnet39a",
    "dpn68",
    "xception41",
    "repvgg_a0",
    "ghostnet_100",
    "rexnet_100",
    "mixnet_s",
    "nf_resnet26",
    "hrnet_w18_small",
    "dla34",
    "resnet50_gn",
    "inception_next_atto",
    "mobileone_s0",
    "tresnet_m",
    "eca_nfnet_l0",
    "resnest14d",
    "resnetv2_50d_frn",
    "convformer_s18",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "hgnetv2_b0",
    "mambaout_femto",
    "repghostnet_050",
    "starnet_s1",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "beit_base_patch16_224",
    "cait_xxs24_224",
    "xcit_nano_12_p16_224",
    "levit_128s",
    "pit_ti_224",
    "gmlp_ti16_224",
    "maxvit_tiny_tf_224",
    "test_coatnet",
    "mobilevit_xxs",
    "edgenext_xx_small",
    "efficientformer_l1",
    "repvit_m0_9",
    "nextvit_small",
    "poolformerv2_s12",
    "hiera_tiny_224",
    "tiny_vit_5m_224",
    "twins_svt_small",
    "davit_tiny",
    "convit_tiny",
    "pvt_v2_b0",
    "samvit_base_patch16_224",
)
KEPT = (0.25, 0.5, 0.75)
SLICE_TOLERANCE, ONNX_TOLERANCE = 1e-4, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("bench-out/zoo.jsonl"), help="where results are kept"
    )
    parser.add_argument("--only", nargs="*", help="names, with or without torchvision: or timm: before them")
    parser.add_argument("--seconds", type=float, help="start no further network after so many seconds")
    options = parser.parse_args()
    ledger = Ledger(options.out, seconds=options.seconds)
    names = [
        name for name in _names() if not options.only or {name, name.partition(":")[2]} & set(options.only)
    ]
    for name in names:
        ledger.measure(name, lambda name=name: _measured(name))  # type: ignore[misc]
    print(
        _table({name: ledger.known[name] for name in sorted(_names(), key=_family) if name in ledger.known})
    )


def _names() -> list[str]:
    """The smallest first, timm's after torchvision's, and torchvision's transformers last."""
    known = sorted(torchvision.models.list_models(module=torchvision.models), key=_parameters)
    return [
        *(f"torchvision:{name}" for name in known if not name.startswith(TRANSFORMERS)),
        *(f"timm:{name}" for name in TIMM),
        *(f"torchvision:{name}" for name in known if name.startswith(TRANSFORMERS)),
    ]


def _family(name: str) -> tuple[bool, str]:
    """By family inside each; a family's members stay smallest first, as `_names` has them."""
    source, _, short = name.partition(":")
    return source == "timm", (re.match(r"[a-z]+(_v\d|_[xy]_)?", short) or [short])[0]


def _parameters(name: str) -> int:
    return int(torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"])


def _measured(name: str) -> dict[str, Any]:
    torch.manual_seed(0)
    module, shape = _model(name)
    images = torch.randn(2, *shape)
    _settle(module, images)
    start = time.perf_counter()
    try:
        network = import_module(module, shape, name=name)
        trunk, head = split_head(network)
    except ModhubError as error:
        return {"refused": error.message}
    imported = time.perf_counter() - start
    images = images[:1]
    with torch.inference_mode():
        import_error = _relative(Runner(head.join(trunk))(images), module(images))
    del module, network
    space = channel_space(trunk)
    slice_error, slice_seconds = 0.0, []
    generator = np.random.default_rng(0)
    for share in KEPT:
        mask = space.close(generator.random(space.slots) < share)
        start = time.perf_counter()
        sliced = slice_network(trunk, mask, space=space)
        slice_seconds.append(time.perf_counter() - start)
        with torch.inference_mode():
            dense = Runner(mask_network(trunk, mask, space))(images)
            slice_error = max(slice_error, _relative(Runner(sliced)(images), _kept(dense, mask, space)))
    own = [group for group in space.groups if group.reason != "is the image"]
    parameters = cost(trunk).parameters + head.weight.numel() + head.bias.numel()
    mask = space.close(generator.random(space.slots) < 0.5)
    sliced = slice_network(trunk, mask, space=space)
    kept = torch.from_numpy(np.flatnonzero(space.kept(mask, trunk.graph.output)))
    whole = head.join(sliced, head.weight[:, kept])
    return {
        "parameters": parameters,
        "input": shape[1],
        "import_seconds": round(imported, 2),
        "slice_seconds": round(max(slice_seconds), 3),
        "groups": len(own),
        "cuttable": sum(group.size for group in own if group.cuttable) / sum(group.size for group in own),
        "refusals": sorted({f"{group.name} {group.reason}" for group in own if not group.cuttable}),
        "import_error": import_error,
        "slice_error": slice_error,
        "onnx_error": _onnx_error(whole, images),
    }


def _model(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    kind, _, short = name.partition(":")
    if kind == "timm":
        import timm

        # Some are published without a head.
        bare = timm.get_pretrained_cfg(short).num_classes == 0
        module = timm.create_model(short, pretrained=False, **({"num_classes": 1000} if bare else {}))
        about: Any = module.pretrained_cfg
        return module, tuple(about["input_size"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torchvision.models.get_model(short, weights=None)
    recipe = torchvision.models.get_model_weights(short).DEFAULT.transforms()
    # The size decides the time, not the structure; the largest are looked at through a smaller window.
    size = min(int(recipe.crop_size[0]), 299 if short == "inception_v3" else 224)
    return module, (3, size, size)


def _settle(module: nn.Module, images: torch.Tensor) -> None:
    """Batch-norm statistics as after training, so that signals neither fade nor explode, and no scale or bias
    left as it begins: a branch that is multiplied by 0 or 1e-6 would hide whatever goes wrong in it."""
    for name, parameter in module.named_parameters():
        if bool((parameter == parameter.flatten()[0]).all()):
            if name.endswith("bias"):
                nn.init.normal_(parameter, 0, 0.1)
            else:
                nn.init.uniform_(parameter, 0.5, 1.0)
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = None
            layer.reset_running_stats()
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.7, 1.3)
                nn.init.normal_(layer.bias, 0, 0.2)
            layer.train()
        else:
            layer.training = False
    with torch.no_grad():
        module(images)
    module.eval()


def _kept(dense: torch.Tensor, mask: np.ndarray[Any, Any], space: ChannelSpace) -> torch.Tensor:
    output = space.graph.output
    kept = torch.from_numpy(np.flatnonzero(space.kept(mask, output)))
    return dense.index_select(space.axis(output) + 1, kept)


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, as a fraction of the largest number, or of 1 where that is larger."""
    return float((found - wanted).abs().max() / max(1.0, float(wanted.abs().max())))


def _onnx_error(network: Network, images: torch.Tensor) -> float:
    import onnxruntime

    runner = Runner(network)
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        exported = torch.export.export(runner, (torch.cat([images, images]),), dynamic_shapes=({0: batch},))
        path = Path(folder) / "network.onnx"
        torch.onnx.export(exported, dynamo=True, verbose=False, opset_version=18, f=path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        return _relative(torch.from_numpy(found), runner(images))


def _table(results: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| network | parameters | input | import s | slice s | groups | can be cut "
        "| sliced − masked | ONNX − PyTorch |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes: list[str] = []
    refused: dict[str, list[str]] = {}
    for name, row in results.items():
        if "refused" in row:
            refused.setdefault(row["refused"].replace(name, "This"), []).append(f"`{name}`")
            continue
        lines.append(
            f"| `{name}` | {row['parameters'] / 1e6:.1f} M | {row['input']} | {row['import_seconds']:.1f} "
            f"| {row['slice_seconds']:.2f} | {row['groups']} | {row['cuttable']:.1%} "
            f"| {_error(row['slice_error'], SLICE_TOLERANCE)} | {_error(row['onnx_error'], ONNX_TOLERANCE)} |"
        )
        notes.extend(f"- `{name}`: {note}" for note in _by_reason(row["refusals"]))
    notes.extend(f"- {', '.join(names)}: not imported. {reason}" for reason, names in refused.items())
    return "\n".join([*lines, "", "Refusals:", "", *(notes or ["- none"])])


def _by_reason(refusals: list[str]) -> list[str]:
    """One sentence per reason, with the first group it is given for."""
    groups: dict[str, list[str]] = {}
    for refusal in refusals:
        group, _, reason = refusal.partition(" ")
        groups.setdefault(reason, []).append(group)
    return [
        f"the group {names[0]} {reason}."
        if len(names) == 1
        else f"{len(names)} groups, first {names[0]}: {reason}."
        for reason, names in groups.items()
    ]


def _error(value: float, tolerance: float) -> str:
    return f"{value:.0e}" if value <= tolerance else f"**{value:.0e}**"


if __name__ == "__main__":
    main()
