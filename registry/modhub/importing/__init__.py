"""From a `torch.nn.Module` to a network as data."""

from modhub.importing.importer import import_module

__all__ = ["import_module"]
