"""The parent: a trained classifier taken apart, and images that are counted as its classes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from modhub.artifact.modules import ModuleSet
from modhub.data import ImageSet
from modhub.decomposition.options import DecomposeOptions
from modhub.errors import DataError, IntegrityError, ParentError, RefError
from modhub.labels import LabelIndex, nearest_labels, one_match, spelling_of
from modhub.manifest import InputSpec
from modhub.nets import Head, Network, split_head
from modhub.refs import check_label, is_text, repeated, rows_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A trained classifier, taken apart into trunk and head.

    `labels[k]` is the class of row k of the head. `sha256` is the content id of the whole network. `aliases`
    are other names of classes, `ontology` their ids for machines, both by label.
    """

    name: str
    architecture: str
    trunk: Network
    head: Head
    labels: tuple[str, ...]
    input: InputSpec
    license: str | None
    dataset: str | None
    sha256: str
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ontology: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_modules(cls, modules: ModuleSet) -> Parent:
        """The parent that `modules` were taken from: their trunk, and the head that lies beside it.

        Raises `ParentError` where no head does, and `IntegrityError` for one that does not fit.
        """
        about, shared = modules.manifest.parent, modules.shared
        weight, bias = shared.parent_weight, shared.parent_bias
        if weight is None or bias is None:
            raise ParentError(
                f"The modules of '{about.name}' do not carry the head of their parent.",
                hint="Decompose the parent again.",
            )
        if (
            weight.shape != (len(about.labels), modules.trunk.graph.features)
            or bias.shape != weight.shape[:1]
        ):
            raise IntegrityError(
                f"The head that the trunk of '{about.name}' carries does not fit it.",
                hint="Pull or decompose it again.",
            )
        return cls(
            name=about.name,
            architecture=about.architecture,
            trunk=modules.trunk,
            head=Head(weight, bias, modules.modules[0].parsed.head_tail),
            labels=about.labels,
            input=modules.manifest.input,
            license=modules.manifest.license,
            dataset=about.dataset,
            sha256=about.sha256,
            aliases={each.manifest.label: each.manifest.aliases for each in modules.modules},
            ontology={
                each.manifest.label: each.manifest.ontology_id
                for each in modules.modules
                if each.manifest.ontology_id is not None
            },
        )

    @classmethod
    def of(
        cls,
        network: Network,
        *,
        name: str,
        architecture: str,
        labels: Sequence[str],
        input: InputSpec,  # noqa: A002 - the manifest's own word
        license: str | None = None,  # noqa: A002
        dataset: str | None = None,
    ) -> Parent:
        """Check a network and split it at its head.

        Raises `ParentError` for weights that are not finite, labels that do not match the head (in number, or
        because one stands twice), an input that is not the network's, and labels or a name, licence or data
        set that are no line of text.
        """
        for key, tensor in network.tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ParentError(
                    f"The weights of '{name}' hold values that are not finite, first in '{key}'.",
                    hint="Train or save the network again; such weights answer nothing.",
                )
        trunk, head = split_head(network)
        rows = head.weight.shape[0]
        if rows == 1:
            head, rows = _of_two_classes(head, name, labels), 2
        if len(labels) != rows:
            raise ParentError(
                f"'{name}' answers with {rows} classes, but {len(labels)} labels were given.",
                hint="Give one label per row of its last layer, in that order, with --labels"
                + (", or --labels imagenet-1k if these are ImageNet's." if rows == 1000 else "."),
            )
        if twice := repeated(map(spelling_of, labels)):
            raise ParentError(f"Duplicate label '{min(twice)}'.", hint="Give every class a label of its own.")
        for label in labels:
            try:
                check_label(label)
            except RefError as error:
                hint = "Rename the class's folder, or name the classes with --labels."
                raise ParentError(error.message, hint=hint) from None
        said = {"name": name, "licence": license, "data set": dataset}
        if odd := [what for what, text in said.items() if text is not None and not is_text(text)]:
            raise ParentError(
                f"The {odd[0]} {said[odd[0]]!a} holds a control character or a lone surrogate.",
                hint="Say it otherwise with --name, --license or --dataset.",
            )
        expected = (input.channels, input.height, input.width)
        if tuple(trunk.graph.input_shape) != expected:
            raise ParentError(
                f"'{name}' takes images of {trunk.graph.input_shape} (channels, height, width), but the "
                f"input was described as {expected}.",
                hint="Check --input-size, --mean and --std.",
            )
        return cls(
            name=name,
            architecture=architecture,
            trunk=trunk,
            head=head,
            labels=tuple(labels),
            input=input,
            license=license,
            dataset=dataset,
            sha256=network.sha256,
        )


def _of_two_classes(head: Head, name: str, labels: Sequence[str]) -> Head:
    """A single logit z, above 0 for the second class, as the logits −z/2 and z/2."""
    if len(labels) != 2 or "relu" in head.tail:
        raise ParentError(
            f"'{name}' gives one logit, which tells two classes apart, but {len(labels)} labels were given.",
            hint="Name the class of a logit below 0, then that of one above: --labels NEGATIVE,POSITIVE",
        )
    halves = torch.tensor([-0.5, 0.5])
    return Head(halves[:, None] * head.weight, halves * head.bias, head.tail)


def wanted_rows(parent: Parent, options: DecomposeOptions) -> list[int]:
    """The head's rows of the classes to make modules of, rising. Raises `DataError` for an unknown class."""
    if unknown := set(options.only or ()) - set(parent.labels):
        raise _no_class(parent, min(unknown))
    wanted = set(options.only or parent.labels)
    return [row for row, label in enumerate(parent.labels) if label in wanted]


def classes_seen(parent: Parent, images: ImageSet) -> dict[str, int]:
    """For a method's parameters: of how many classes there were `images`, when not of all."""
    seen = int(np.unique(images.targets).size)
    return {"classes_seen": seen} if seen < len(parent.labels) else {}


def classes_named(parent: Parent, texts: Sequence[str]) -> tuple[str, ...]:
    """The labels of the parent that `texts` name: each one label, or several with commas between them.

    A label may hold commas itself. Raises `DataError` with the nearest labels for a class that there is not,
    and `AmbiguousClassError`.
    """
    index = LabelIndex(parent.labels, parent.aliases)
    named: dict[str, None] = {}
    for text in texts:
        parts = text.split(",")
        while parts:
            for count in range(len(parts), 0, -1):
                name = ",".join(parts[:count]).strip()
                places = index.find(name)
                if count > 1:
                    places = tuple(place for place in places if "," in parent.labels[place])
                match = one_match(name, parent.labels, places, f"'{parent.name}'")
                if match is not None or (count == 1 and not name):
                    break
            else:
                raise _no_class(parent, name, text)
            if match is not None:
                named[parent.labels[match]] = None
            parts = parts[count:]
    if not named:
        raise DataError("No class is named to make a module of.", hint="Name at least one with --only.")
    return tuple(named)


def _no_class(parent: Parent, name: str, text: str = "") -> DataError:
    near = nearest_labels(name, parent.labels) or nearest_labels(text, parent.labels)
    listed = ", ".join(f"'{label}'" for label in near or parent.labels[:20])
    return DataError(
        f"'{parent.name}' has no class '{name}'.",
        hint=f"{'Nearest' if near else 'Its classes are'}: {listed}.",
    )


def aligned(
    parent: Parent, images: ImageSet, needed: Sequence[str] | None = None, minimum: int = 2
) -> ImageSet:
    """`images` of the parent's classes, targets counted as the parent's labels.

    Case and separators of labels do not count, unless they tell classes apart (`rows_of`). Only the classes
    `needed` (None: all) must be there; others are what a module tells its class from. Raises `DataError`
    when a needed class has fewer than `minimum` images, or when there is no other.
    """
    needed = parent.labels if needed is None else needed
    rows = rows_of(images.labels, parent.labels, parent.aliases)
    given = set(rows.values())
    there = [label for row, label in enumerate(parent.labels) if row in given]
    if missing := sorted(set(needed) - set(there)):
        hint = f"Its classes are: {', '.join(images.labels[:10])}; name the parent's with --labels."
        if len(there) > 1:
            only = " ".join(f"--only {shlex.quote(label)}" for label in there[:10])
            hint = f"Make modules of what is there with: {only}"
        raise DataError(
            f"The data set '{images.name}' has no images of '{missing[0]}', which '{parent.name}' knows"
            + (f" (and lacks {len(missing) - 1} more of its classes)." if len(missing) > 1 else "."),
            hint=hint,
        )
    own = images.only([label for label in images.labels if label in rows]).renumbered(parent.labels, rows)
    counts = own.counts()
    images_of = dict(zip(parent.labels, counts.tolist(), strict=True))
    for label in needed:
        if images_of[label] < minimum:
            raise DataError(
                f"The data set '{images.name}' has {images_of[label]} images of '{label}'; "
                f"at least {minimum} are needed.",
                hint="Add images of that class.",
            )
    if np.count_nonzero(counts) < 2:
        raise DataError(
            f"Of the classes that '{parent.name}' knows, the data set '{images.name}' has images of "
            f"'{parent.labels[int(counts.argmax())]}' only.",
            hint="Add images of another of its classes, for the module to be told from.",
        )
    return own
