"""What a classifier is measured against."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from modhub.data.preprocessing import Preprocess
from modhub.errors import DataError
from modhub.manifest import InputSpec


class RestrictedParent(nn.Module):
    """The unpruned parent's logits of `labels`, nothing else changed.

    `network` gives one logit for each of `parent_labels` from normalised images; `forward` takes raw images,
    as any classifier does. Raises `DataError` for a label that the parent lacks.
    """

    def __init__(
        self, network: nn.Module, spec: InputSpec, parent_labels: Sequence[str], labels: Sequence[str]
    ) -> None:
        super().__init__()
        if missing := [label for label in labels if label not in parent_labels]:
            raise DataError(
                f"The parent has no class '{missing[0]}'.",
                hint=f"It has: {', '.join(list(parent_labels)[:20])}.",
            )
        self.labels = tuple(labels)
        self.network = network
        self.preprocess = Preprocess(spec)
        self._rows = [list(parent_labels).index(label) for label in labels]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.preprocess(images))
        return logits[:, self._rows]
