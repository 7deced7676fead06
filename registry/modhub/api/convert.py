"""From a checkpoint of torch.save to safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from modhub.errors import ParentError
from modhub.files import check_new_file, new_file
from modhub.parents import read_checkpoint, unwrapped
from modhub.reporter import SILENT, Reporter
from modhub.results import Result

SUFFIX = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ConvertReport(Result):
    """The file at `path`: how many `tensors` it holds, how many numbers these have, and its size."""

    path: Path
    tensors: int
    parameters: int
    bytes: int


def convert(
    source: Path | str,
    target: Path | str | None = None,
    *,
    force: bool = False,
    reporter: Reporter = SILENT,
) -> ConvertReport:
    """Write the weights of a checkpoint as a safetensors file, which appears whole or not at all.

    Of `source`, what torch.save wrote, only tensors are read (`torch.load` with `weights_only`). They keep
    their names, without what DataParallel, torch.compile, Lightning and weight averaging put before all of
    them. `target` is by default `source` with the suffix .safetensors.

    Raises `ParentError` for a file that holds something else than one set of weights, and `StorageError`,
    also where there is a file already and no `force`.
    """
    source = Path(source)
    if source.suffix.lower() == SUFFIX:
        raise ParentError(f"'{source}' is a safetensors file already.", hint="Pass it with --weights.")
    path = source.with_suffix(SUFFIX) if target is None else Path(target)
    check_new_file(path, force=force)
    reporter.note(f"Of '{source}' only tensors are read (torch.load with weights_only=True).")
    tensors = {
        key: _storable(key, tensor, source) for key, tensor in unwrapped(read_checkpoint(source)).items()
    }
    try:
        content = save(tensors, {"format": "pt"})
    except (ValueError, KeyError) as error:
        raise ParentError(
            f"'{source}' holds a tensor that safetensors has no form for ({str(error).rstrip('.')}).",
            hint="Save the weights as decimals.",
        ) from None
    with new_file(path, large=True) as scratch:
        scratch.write_bytes(content)
    return ConvertReport(
        path=path,
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        bytes=len(content),
    )


def _storable(key: str, tensor: Tensor, source: Path) -> Tensor:
    """A tensor with memory of its own, in order: tied weights are two. Raises `ParentError`."""
    kind = (
        "quantised" if tensor.is_quantized else "sparse" if tensor.is_sparse or tensor.is_sparse_csr else None
    )
    if tensor.is_meta:
        kind = "without data"
    if kind is not None:
        raise ParentError(
            f"'{key}' in '{source}' is {kind}, which safetensors has no form for.",
            hint="Save the weights as plain tensors of decimals.",
        )
    return tensor.detach().clone().contiguous()
