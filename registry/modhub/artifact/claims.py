"""Whether a network costs what its manifests say: everything is counted again."""

from __future__ import annotations

from collections.abc import Mapping

from modhub.artifact.modules import ModuleSet
from modhub.errors import IntegrityError
from modhub.manifest import AGAIN
from modhub.nets.channels import channel_space
from modhub.nets.complexity import cost
from modhub.nets.slicing import mask_positions, slice_network
from modhub.reporter import SILENT, Reporter


def check_costs(modules: ModuleSet, reporter: Reporter = SILENT) -> None:
    """Compare what the manifests record of the trunk and of each module with the networks.

    Raises `IntegrityError` naming the first number that differs.
    """
    whole = cost(modules.trunk)
    for module in reporter.track(modules.modules, "networks", len(modules.modules)):
        tensors, network = module.parsed, modules.trunk
        if tensors.position_masks:
            network = mask_positions(network, {k: v.bool() for k, v in tensors.position_masks.items()})
        mask = tensors.mask.numpy().astype(bool)
        kept = cost(slice_network(network, mask, space=channel_space(network)))
        trunk, sizes = module.manifest.trunk, module.manifest.sizes
        _compare(
            f"The trunk of the module '{module.label}'",
            {
                "parameters": (trunk.parameters, whole.parameters),
                "multiply-adds": (trunk.flops, whole.flops),
            },
        )
        numbers = {
            "kept channels": (sizes.kept_channels, int(mask.sum())),
            "multiply-adds": (sizes.flops, kept.flops),
        }
        if module.manifest.form == "delta":
            # A standalone module has no more of its parent than what it keeps.
            numbers |= {
                "channels": (sizes.channels, len(mask)),
                "parameters": (sizes.parameters, whole.parameters),
                "multiply-adds of its parent": (sizes.parent_flops, whole.flops),
            }
        _compare(f"The module '{module.label}'", numbers)

        if abs(sizes.kept_parameters - kept.parameters) > sizes.kept_channels:
            # Making up for removed channels gives layers a bias that had none.
            raise IntegrityError(
                f"The module '{module.label}' has about {kept.parameters:,} kept parameters, and its "
                f"manifest says {sizes.kept_parameters:,}.",
                hint=AGAIN,
            )


def _compare(place: str, numbers: Mapping[str, tuple[int, int]]) -> None:
    for name, (claimed, counted) in numbers.items():
        if claimed != counted:
            raise IntegrityError(
                f"{place} has {counted:,} {name}, and its manifest says {claimed:,}.", hint=AGAIN
            )
