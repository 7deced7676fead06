"""Which device computes, and how much memory the work took."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from modhub.errors import DeviceError

CPU = torch.device("cpu")


def pick_device(text: str = "auto") -> torch.device:
    """`auto` (CUDA where there is one), `cpu`, `cuda` (under torchrun each process its own) or `cuda:N`.

    On CUDA convolutions are then computed in full float32, so that results agree with the CPU's to 1e-3.
    Raises `DeviceError`.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise DeviceError(f"'{text}' is not a device.", hint="There are: auto, cpu, cuda.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "cpu" or (text == "auto" and not count):
        return CPU
    # torchrun numbers the processes of a machine; each takes a device of its own while there are enough.
    turn = int(os.environ.get("LOCAL_RANK", "0")) % max(count, 1)
    number = int(text.partition(":")[2] or turn)
    if number >= count:
        reason = f"has {count}" if count else "has no CUDA device that PyTorch can use"
        raise DeviceError(
            f"The device '{text}' was asked for, but this machine {reason}.",
            hint="Use --device auto or --device cpu.",
        )
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda", number)


@contextmanager
def torch_defaults() -> Iterator[None]:
    """torch as it is where nobody has set it otherwise; also a decorator.

    float32 and the CPU by default, gradients on, outside of inference mode and without autocast. Numbers and
    bytes of what is made must not hang on what a caller happens to have set. A default type that is another
    changes for all threads, as long as this takes.
    """
    with ExitStack() as stack:
        if (kind := torch.get_default_dtype()) != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, kind)
        if torch.get_default_device() != CPU:
            stack.enter_context(CPU)
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


def peak_memory() -> int | None:
    """The most bytes this process had in memory so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
