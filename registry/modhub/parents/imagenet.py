"""The 1,000 classes of ILSVRC 2012: their names, synonyms and WordNet ids."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence

import torchvision

from modhub.labels import spelling_of
from modhub.parents.base import distinct_labels

IMAGENET = 1000


def imagenet_labels() -> tuple[str, ...]:
    """The names of the classes in their usual order, as torchvision has them."""
    return distinct_labels(torchvision.models.get_model_weights("resnet18").DEFAULT.meta["categories"])


def imagenet_synonyms(labels: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Of `labels` that are ImageNet's, in its order, by label: other names and the synset's id (n01443537).

    Other names are that id, WordNet's description, and its words as far as they mean no other class. Empty
    for other labels, and without timm, which has them.
    """
    if len(labels) != IMAGENET:
        return {}, {}
    try:
        info = importlib.import_module("timm.data").ImageNetInfo()
    except ImportError:
        return {}, {}
    synsets = [info.index_to_label_name(row) for row in range(IMAGENET)]
    synonyms = [info.index_to_description(row).split(", ") for row in range(IMAGENET)]
    rows = zip(labels, imagenet_labels(), synsets, synonyms, strict=True)
    if not all(label in (name, synset, *words, ", ".join(words)) for label, name, synset, words in rows):
        return {}, {}
    meant = Counter(word for words in synonyms for word in {spelling_of(word) for word in words})
    taken = {spelling_of(label) for label in labels}
    aliases = {}
    for label, name, synset, words in zip(labels, imagenet_labels(), synsets, synonyms, strict=True):
        whole = ", ".join(words)
        names = [synset, whole, *(word for word in (name, *words) if meant[spelling_of(word)] < 2)]
        aliases[label] = tuple(each for each in dict.fromkeys(names) if spelling_of(each) not in taken)
    return aliases, dict(zip(labels, synsets, strict=True))
