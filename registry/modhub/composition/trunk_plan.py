"""The modules of one trunk: what they keep together, and the slim network that this makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modhub.artifact.tensors import unite_positions
from modhub.composition.budget import KINDS, Budget, mask_within
from modhub.composition.classifier import TrunkPass, TrunkReport
from modhub.composition.fitting.data import Examples, Material, apart, asked_about, room, seen_at_most, tuned
from modhub.composition.fitting.recalibration import recalibrate
from modhub.composition.fitting.synthesis import Wish
from modhub.composition.fitting.synthetic_images import Imagination
from modhub.composition.head_density import worlds
from modhub.composition.heads import JoinedHead
from modhub.composition.part_tensors import StackedRows, head_tensors, mask_of, relevance_of
from modhub.composition.parts import Part
from modhub.data import ImageSet
from modhub.devices import CPU
from modhub.errors import BudgetError
from modhub.files import sha256_of_bytes
from modhub.manifest import InputSpec
from modhub.nets import (
    ChannelSpace,
    Mask,
    Network,
    Runner,
    channel_space,
    cost,
    fuse_batch_norm,
    mask_positions,
    without_constants,
)
from modhub.pruning.baselines import random_order, relevance_order, with_first
from modhub.pruning.compensation import cut
from modhub.pruning.depth import branch_order, distance, evenly
from modhub.pruning.order import PruningOrder, pruning_order, slot_costs
from modhub.pruning.statistics import ClassStatistics, observe, pooled_statistics, read_statistics
from modhub.reporter import SILENT, Reporter

__all__ = ["Fitting", "TrunkPlan", "decisions", "plans", "positioned"]

_STEPS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_HELD = 4
"""Of this many images one measures and the others fit."""
_BATCH = 50
_DEPTHS = 9
"""So many steps from all residual branches to none are tried where time is limited."""
_TRIED = 200
"""On so many images networks of different depths are refitted to see which is best."""
_BRANCH_WORK = 1e12
"""Multiply-adds that running the trunk without each branch may take."""
_BRANCH_IMAGES = (20, 200)
"""The fewest and the most images that branches are ordered on."""
_OWN = 10
"""With more classes than this synthetic images are made for all of them together."""


def plans(parts: Sequence[Part], device: torch.device = CPU) -> list[TrunkPlan]:
    """`parts` by trunk and, inside, by head; the result does not depend on their order.

    Parents that prepare images in other ways see other images, and share no pass.
    """
    groups: dict[tuple[str, InputSpec], dict[str, list[Part]]] = {}
    for part in sorted(parts, key=lambda part: (part.module.manifest.trunk.sha256, part.head, part.name)):
        trunk = part.module.manifest.trunk.sha256, part.module.manifest.input
        groups.setdefault(trunk, {}).setdefault(part.head, []).append(part)
    return [TrunkPlan(tuple(tuple(head) for head in heads.values()), device) for heads in groups.values()]


@dataclass(frozen=True, slots=True)
class Fitting:
    """What slim networks are fitted on: the images of `tune`, or where it is None those of `imagination`."""

    tune: ImageSet | None
    imagination: Imagination
    seed: int = 0
    reporter: Reporter = SILENT


@dataclass(frozen=True)
class TrunkPlan:
    """The modules that share one trunk, by head; what is fitted is fitted on `device`."""

    heads: tuple[tuple[Part, ...], ...]
    device: torch.device = CPU
    seen: ClassStatistics | None = None
    """Statistics of images to fit on, in place of those that the modules carry."""

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for head in self.heads for part in head)

    @property
    def trunk(self) -> Network:
        return self.parts[0].trunk

    @property
    def spec(self) -> InputSpec:
        return self.parts[0].module.manifest.input

    @cached_property
    def space(self) -> ChannelSpace:
        return channel_space(self.trunk)

    @cached_property
    def statistics(self) -> ClassStatistics | None:
        """Pooled over the modules; None when one of them carries none."""
        if self.seen is not None:
            return self.seen
        found = self.class_statistics()
        return None if found is None else pooled_statistics(found)

    def class_statistics(self) -> list[ClassStatistics] | None:
        """One per module, in their order; None when one of them carries none."""
        space = self.space
        found = [
            read_statistics(part.tensors.statistics, part.shared.correlations, self.trunk.graph, space)
            for part in self.parts
        ]
        known = [each for each in found if each is not None]
        return known if len(known) == len(found) else None

    def seeing(self, material: Material, reporter: Reporter = SILENT) -> TrunkPlan:
        """The plan that chooses channels by what the images say, where one class answers alone.

        A module carries what its own class's images do to the trunk. A class among others of its parent needs
        no more; one that says yes or no hangs as much on what the others look like.
        """
        if not material.both_sides or len(self.parts) != 1 or self.statistics is None:
            return self
        (head,) = self.whole.heads
        runner = Runner(fuse_batch_norm(self.trunk)).to(self.device)

        def answer(features: Tensor) -> Tensor:
            on_head = features.to(head.calibration.device)
            return head.odds(head.margins(on_head), head.against(on_head))[:, 0]

        with reporter.step("look at images"):
            images = evenly(material.images, seen_at_most(self.trunk))
            batches = (batch.to(self.device) for batch in torch.split(images, _BATCH))
            return replace(self, seen=observe(runner, batches, self.space, answer))

    def mask(self, budget: Budget | None, control: int | None = None) -> Mask:
        """The union of the modules' masks, or what `budget` buys for the set; `control` draws what goes at
        random. Raises `BudgetError`."""
        if budget is None or all(getattr(budget, kind) is None for kind in KINDS):
            return self.space.union(mask_of(part) for part in self.parts)
        if control is not None:
            removal = random_order(self.space, control, branches=budget.time is not None)
        else:
            removal = self.removal
        return mask_within(self.trunk, self.space, removal, budget)

    def compile_to_loss(self, budget: Budget, fitting: Fitting) -> TrunkPass:
        """The smallest network of a row of budgets that answers otherwise than the whole one for at most
        `max_loss` of the images it is not fitted on, so that the loss is at most that; the whole trunk when
        none does. Raises `BudgetError` when the whole trunk is too large."""
        goal = 0.0 if budget.max_loss is None else budget.max_loss
        self.mask(budget)
        most = budget.flops or 1.0
        limits = [*(step for step in _STEPS if step < most), *([most] if most < 1 else [])]
        best = self.whole
        measured: Tensor | None = None
        reference: Tensor | None = None
        material: Material | None = None
        low, high = 0, len(limits)
        plan = self
        while low < high:
            middle = (low + high) // 2
            limit = replace(budget, flops=limits[middle])
            try:
                mask = self.mask(limit)
            except BudgetError:
                # So small is none of its networks.
                low = middle + 1
                continue
            if material is None:
                measured, material = self._measured(mask, fitting)
            if material is None or measured is None:
                break
            if reference is None:
                reference = decisions(self.whole, measured)
                plan = self.seeing(material, fitting.reporter)
            mask = plan.chosen(limit, material, fitting.seed, fitting.reporter)
            found = plan.compile(mask, material, seed=fitting.seed, reporter=fitting.reporter)
            if float((decisions(found, measured) != reference).float().mean()) <= goal:
                best, high = found, middle
            else:
                low = middle + 1
        limited = any((getattr(budget, kind) or 1.0) < 1 for kind in KINDS)
        if limited and best.report.flops == best.report.parent_flops:
            raise BudgetError(
                f"No network within the budget answers as its parent on all but {goal:.2%} of the images.",
                hint="Allow a larger --max-loss or a larger --budget, or give more images with --tune.",
            )
        return best

    @cached_property
    def whole(self) -> TrunkPass:
        """The trunk with all its channels, which says what slim networks should."""
        return self.compile(self.space.full_mask())

    @cached_property
    def removal(self) -> PruningOrder:
        """The order in which channels can go for this set of classes."""
        space, costs = self.space, slot_costs(self.trunk, self.space)
        statistics = self.statistics
        if statistics is not None:
            return pruning_order(statistics, space, costs, branches=True)
        return relevance_order(
            np.sum([relevance_of(part, space) for part in self.parts], axis=0), space, costs
        )

    def chosen(self, budget: Budget, material: Material, seed: int, reporter: Reporter = SILENT) -> Mask:
        """`mask`, and where time is limited with as many residual branches gone as it takes.

        A thin layer takes nearly the time of a wide one, so time is saved by fewer layers. Channels and
        layers do not compare by their charges: more and more branches are left out, in one order for all
        budgets, channels save the rest, and each network is refitted on some of the images. The one that
        comes closest to its parent is taken. So a larger budget may keep fewer branches and more channels.
        Raises `BudgetError`.
        """
        mask = self.mask(budget)
        if budget.time is None or mask.all() or self.statistics is None:
            return mask
        with reporter.step("choose layers"):
            return self._shallower(mask, budget, material, seed)

    def _shallower(self, mask: Mask, budget: Budget, material: Material, seed: int) -> Mask:
        dense = self.whole.trunk.network
        most = _BRANCH_WORK / max(len(self.space.branches) * cost(dense).flops, 1)
        asked = evenly(material.images, int(min(max(most, _BRANCH_IMAGES[0]), _BRANCH_IMAGES[1])))
        order = branch_order(dense, asked, lambda network: _margins(self.whole, asked, network))
        slots = {branch.sum: branch.slots for branch in self.space.branches}
        trial, wanted = material.without_lessons(_TRIED), _margins(self.whole, material.judged)
        least, worse = math.inf, 0
        for count in range(0, len(order) + 1, max(1, round(len(order) / _DEPTHS))):
            first = [slots[name] for name in order[:count]]
            tried = mask_within(self.trunk, self.space, with_first(self.removal, first), budget)
            off = distance(_margins(self.compile(tried, trial, seed=seed), material.judged) - wanted)
            if off < least:
                mask, least, worse = tried, off, 0
            else:
                worse += 1
            if worse == 2:
                break
        return mask

    def material(self, mask: Mask, budget: Budget | None, fitting: Fitting) -> Material | None:
        """What to fit a slim network on: the caller's images, or synthetic ones under a budget."""
        if not self._fits(mask):
            return None
        if fitting.tune is not None:
            examples = self._examples(fitting.tune, fitting)
            with fitting.reporter.step("prepare images"):
                return Material.of_images(examples, self.spec, self.trunk, fitting.seed)
        if budget is None:
            return None
        images = self._imagined(fitting)
        return None if images is None else self._of_imagination(images, fitting.seed)

    def _measured(self, mask: Mask, fitting: Fitting) -> tuple[Tensor | None, Material | None]:
        """What to fit a slim network on, and before it normalised images that it does not hold."""
        if not self._fits(mask):
            return None, None
        if fitting.tune is not None:
            held, fitted = self._examples(fitting.tune, fitting).apart(_HELD)
            if not len(fitted.images):
                return None, None
            measured = held.normalised(self.spec, room(self.trunk))
            return measured, Material.of_images(fitted, self.spec, self.trunk, fitting.seed)
        images = self._imagined(fitting)
        if images is None:
            return None, None
        first, rest = apart(len(images), _HELD, len(self.wishes()))
        return images[first], self._of_imagination(images[rest], fitting.seed)

    def _fits(self, mask: Mask) -> bool:
        """Whether a network cut to `mask` can be fitted at all."""
        return not mask.all() and not any(part.tensors.position_masks for part in self.parts)

    def _examples(self, tune: ImageSet, fitting: Fitting) -> Examples:
        """With what the parent says of them where a class answers alone, and imagined ones of a side that it
        hardly finds among them; or where several classes would drown in images of others."""
        alone = any(len(head) == 1 for head in self.heads)
        if not alone and any(head.tensors.siblings is None for head in self.whole.heads):
            return Examples(tune)
        asked = asked_about(tune, self.trunk, fitting.seed)
        with fitting.reporter.step("ask the parent"):
            examples = Examples(asked, self._wanted_in(asked, alone))
        if not alone:
            return examples if examples.outnumbered else Examples(tune)
        if len(self.parts) > 1 or examples.lacking is None:
            return examples
        images = self._imagined(fitting)
        if images is None:
            return examples
        wanted = decisions(self.whole, images)[:, 0].bool() == examples.lacking
        return replace(examples, imagined=images[wanted]) if wanted.any() else examples

    def _of_imagination(self, images: Tensor, seed: int) -> Material:
        wishes = len(self.wishes())
        # A class that answers alone has a second wish, for images of others.
        return Material.of_imagination(images, seed, wishes, both_sides=wishes > len(self.parts))

    def _imagined(self, fitting: Fitting) -> Tensor | None:
        """Normalised synthetic images; None when a module carries no statistics."""
        wishes = self.wishes()
        if not wishes:
            return None
        trunk = fuse_batch_norm(self.trunk)
        return fitting.imagination.images(trunk, self.spec, wishes, fitting.reporter)

    def _wanted_in(self, images: ImageSet, alone: bool) -> NDArray[np.bool_]:
        """(images,) whether the whole network says yes for some class that answers `alone`; or else whether
        its parent holds an image likelier of some head's classes than of their siblings."""
        # Compiled before: what inference mode makes cannot be trained on.
        whole, found = self.whole, np.zeros(len(images), np.bool_)
        for pixels, indices in images.batches(_BATCH):
            with torch.inference_mode():
                for answer in whole.answers(pixels):
                    if answer.head.classes == 1:
                        found[indices] |= (answer.log_odds()[:, 0] > 0).numpy()
                    elif not alone and answer.against is not None:
                        claimed = answer.head.scaled(answer.margin).logsumexp(1)
                        found[indices] |= (claimed > answer.against[:, 0]).numpy()
        return found

    def wishes(self) -> dict[str, Wish]:
        """What synthetic images should be like, by the content id of what asks for them: one wish per class,
        or one for all when they are many. Empty when a module carries no statistics."""
        found = self.class_statistics()
        if found is None:
            return {}
        ids = [part.module.manifest.trunk.sha256 + part.module.manifest.tensors.sha256 for part in self.parts]
        if len(found) > _OWN:
            return {sha256_of_bytes("".join(ids).encode()): Wish(pooled_statistics(found))}
        tensors = [head_tensors(head) for head in self.heads]
        rows = torch.cat([head.rows - head.rest for head in tensors])
        bias = torch.cat([head.row_bias - head.rest_bias for head in tensors])
        wishes = {
            sha256_of_bytes(id_.encode()): Wish(each, rows[place : place + 1], bias[place : place + 1])
            for place, (id_, each) in enumerate(zip(ids, found, strict=True))
        }
        siblings, sibling_bias = tensors[0].siblings, tensors[0].sibling_bias
        if len(ids) == 1 and siblings is not None and sibling_bias is not None:
            # A class that says yes or no must have seen what it says no to.
            others = Wish(_early(found[0]), siblings, sibling_bias)
            wishes[sha256_of_bytes(f"{ids[0]} others".encode())] = others
        return wishes

    def compile(
        self,
        mask: Mask,
        material: Material | None = None,
        *,
        seed: int = 0,
        reporter: Reporter = SILENT,
    ) -> TrunkPass:
        """The trunk cut to `mask`, removed channels folded into what reads them, and the joined heads.

        With `material` the slim network is fitted to its parent's answers on it.
        """
        space = self.space
        dense = positioned(self.trunk, self.parts)
        if dense is not self.trunk:
            # Channel slots survive position masks; only the values' names change.
            space = channel_space(dense)
        rows = StackedRows.of([head_tensors(head) for head in self.heads])
        statistics = self.statistics if dense is self.trunk and not mask.all() else None
        sliced, weight, fitted_bias = cut(dense, mask, space, statistics, rows.weight, rows.bias)
        network = fuse_batch_norm(sliced)
        if material is not None:
            network = without_constants(network, space, mask)
            network, (weight, fitted_bias) = tuned(
                fuse_batch_norm(self.trunk),
                network,
                space,
                mask,
                (rows.weight, rows.bias),
                (weight, fitted_bias),
                rows.matched,
                material,
                None if statistics is None else statistics.sensitivity,
                seed=seed,
                device=self.device,
                reporter=reporter,
            )
        heads = [
            JoinedHead(replace(fitted, density=world), head[0].tensors.head_tail)
            for fitted, head, world in zip(
                rows.fitted(weight, fitted_bias),
                self.heads,
                worlds(self.heads, mask),
                strict=True,
            )
        ]
        found = TrunkPass(network, self.spec, heads, self._report(sliced, mask))
        if material is not None and material.others and (material.both_sides or len(self.parts) > 1):
            with reporter.step("recalibrate"):
                recalibrate(found, self.whole, material.checks(self.whole.preprocess))
        return found

    def _report(self, sliced: Network, mask: Mask) -> TrunkReport:
        part, whole = cost(sliced), cost(self.trunk)
        names = dict.fromkeys(head[0].module.manifest.parent.name for head in self.heads)
        return TrunkReport(
            parent=" + ".join(names),
            kept_channels_fraction=float(mask.mean()) if len(mask) else 1.0,
            kept_params_fraction=part.parameters / max(whole.parameters, 1),
            flops=part.flops,
            parent_flops=whole.flops,
        )


def _early(statistics: ClassStatistics) -> ClassStatistics:
    """Of the first half of the values: what images of any class do alike."""
    names = list(statistics.moments)[: len(statistics.moments) // 2]
    return ClassStatistics(
        {name: statistics.moments[name] for name in names},
        {name: statistics.sensitivity[name] for name in names},
    )


def decisions(each: TrunkPass, images: Tensor) -> Tensor:
    """(images, heads): the best class of each head, or of a single class whether it is there."""
    with torch.inference_mode():
        features = torch.cat([each.trunk(batch) for batch in torch.split(images, _BATCH)])
        found = []
        for answer in each.answers_to(features):
            if answer.head.classes == 1:
                found.append((answer.log_odds() > 0).long()[:, 0])
            else:
                found.append(answer.margin.argmax(1))
    return torch.stack(found, 1)


def _margins(each: TrunkPass, images: Tensor, network: Network | None = None) -> Tensor:
    """(images, classes): what a pass answers to normalised images, centred in every head of several classes;
    of another `network` in its place."""
    run = each.trunk if network is None else Runner(network)
    with torch.inference_mode():
        features = torch.cat([run(batch) for batch in torch.split(images, _BATCH)])
        found = [head.margins(features) for head in each.heads]
    return torch.cat([each - each.mean(1, keepdim=True) if each.shape[1] > 1 else each for each in found], 1)


def positioned(trunk: Network, parts: Sequence[Part]) -> Network:
    """The trunk with position masks united: a position is alive where any module keeps it."""
    masks = unite_positions([part.tensors.position_masks for part in parts])
    return mask_positions(trunk, masks) if masks else trunk
