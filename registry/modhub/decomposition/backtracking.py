"""Back-tracking: which positions serve the class, and which only "all others" (Pan & Rajan 2022, §3.3).

The paper removes, from the last layer backwards, nodes that support nothing but the non-concern output, with
an edge threshold δ = 0.5. It is read here as follows, the same for dense nodes and convolution positions:

- an edge links two nodes when its weight is at least δ in size; between two convolutions the edges of a
  position are the kernel weights through which it reaches positions of the next;
- a feature is removed when it is linked to the non-concern output of the channelled head and not to the
  concern's; a node before it when it is linked to something and everything it is linked to was removed;
- a node linked to nothing stays, since nothing says whom it serves;
- normalisation and activations pass through; pooling, flatten, slices and padding map positions; both
  branches of an Add inherit what is needed behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from modhub.nets import Network, Node
from modhub.nets.kernels import KERNELS
from modhub.nets.operators import OPERATORS

_IDENTITIES = frozenset(
    ("batch_norm", "group_norm", "layer_norm", "prelu", "add_constant", "multiply_constant", "position_mask")
)


def serving_positions(
    trunk: Network,
    head: Tensor,
    alive: Mapping[str, Tensor],
    *,
    threshold: float,
    to_input: bool,
) -> dict[str, Tensor]:
    """Value name → bool, False where a position serves only the non-concern output.

    `head` is the channelled weight (2, features); `alive` names the positions that still live, by value, and
    dead ones serve nobody. With `to_input` the walk goes back to the image (variant BI), otherwise it ends
    at the outputs of the last convolutions (BLN). Values that the walk does not reach are not in the result.
    """
    graph = trunk.graph
    linked_head = head.abs() >= threshold
    shape = graph.shapes[graph.output]
    spread = (-1, *[1] * (len(shape) - 1)) if len(shape) == 3 else (-1,)
    needed = {graph.output: linked_head[0].reshape(spread).expand(shape)}
    linked = {graph.output: linked_head.any(0).reshape(spread).expand(shape)}
    serving = {}
    for node in reversed(graph.nodes):
        if node.name not in needed:
            continue
        lives = alive.get(node.name, torch.ones(()).bool())
        stays = ~(linked[node.name] & ~needed[node.name])
        serving[node.name] = stays
        weighted = node.op in ("conv2d", "linear")
        if node.op == "conv2d" and not to_input:
            # The walk ends here: what a convolution reads is taken to serve the class.
            whole = torch.ones(graph.shapes[node.inputs[0]], dtype=torch.bool)
            needed[node.inputs[0]] = linked[node.inputs[0]] = whole
            continue
        passed = (stays if weighted else needed[node.name]) & lives
        reached = torch.ones_like(passed) if weighted else linked[node.name]
        for found, cotangent in ((needed, passed), (linked, reached)):
            for name, gradient in _back(trunk, node, cotangent, threshold):
                found[name] = found.get(name, torch.zeros_like(gradient)) | gradient
    return serving


def _back(trunk: Network, node: Node, cotangent: Tensor, threshold: float) -> Sequence[tuple[str, Tensor]]:
    """For each input of `node` which of its positions reach a True position of the output."""
    shapes = [trunk.graph.shapes[name] for name in node.inputs]
    inputs = [torch.zeros((1, *shape), requires_grad=True) for shape in shapes]
    gradients = torch.autograd.grad(
        _reach(trunk, node, threshold)(inputs), inputs, cotangent.float()[None], allow_unused=True
    )
    return [
        (name, torch.zeros(shape).bool() if gradient is None else gradient[0] > 0)
        for name, shape, gradient in zip(node.inputs, shapes, gradients, strict=True)
    ]


def _reach(trunk: Network, node: Node, threshold: float) -> Callable[[Sequence[Tensor]], Tensor]:
    """A linear stand-in of `node` with weights 0 and 1: its gradient counts the edges."""
    a = node.attributes
    kernel = KERNELS[node.op]
    if node.op in ("conv2d", "linear"):
        edges = (trunk.of(node)["weight"].abs() >= threshold).float()
        return lambda x: kernel(a, x, {"weight": edges})
    if OPERATORS[node.op].rule == "same" or node.op in _IDENTITIES:
        return lambda x: x[0]
    if node.op == "multiply":
        return lambda x: x[0] + x[1]
    if node.op == "max_pool2d":
        return lambda x: _window_sum(x[0], a["kernel"], a["stride"], a["padding"], a["dilation"], a["ceil"])
    if node.op == "adaptive_max_pool2d":
        return lambda x: F.adaptive_avg_pool2d(x[0], a["size"])
    return lambda x: kernel(a, x, trunk.of(node))


def _window_sum(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    ceil: bool,
) -> Tensor:
    """Every position of a pooling window reaches its output, not only the largest."""
    size = F.max_pool2d(x.detach(), kernel, stride, padding, dilation, ceil).shape[-2:]
    ends = [
        (count - 1) * step + spacing * (width - 1) + 1
        for count, step, spacing, width in zip(size, stride, dilation, kernel, strict=True)
    ]
    after = [max(0, end - extent - pad) for end, extent, pad in zip(ends, x.shape[-2:], padding, strict=True)]
    padded = F.pad(x, (padding[1], after[1], padding[0], after[0]))
    ones = torch.ones((x.shape[1], 1, *kernel))
    summed: Tensor = F.conv2d(padded, ones, stride=stride, dilation=dilation, groups=x.shape[1])
    return summed[..., : size[0], : size[1]]
