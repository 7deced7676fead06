"""Modules become data, operator by operator, or say in one sentence why not."""

from __future__ import annotations

import builtins
import math
import warnings
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.transforms import Normalize
from torchvision.transforms.functional import normalize

from modhub.errors import ModhubError, NetworkImportError, ParentError, UnsupportedOperatorError
from modhub.importing import import_module
from modhub.nets import ARCHITECTURES, Runner, split_head

SHAPE = (4, 8, 8)


class Called(nn.Module):
    """A convolution, and a function of what it makes."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.register_buffer("row", torch.linspace(0.5, 1.5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


def table(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, math.prod(shape)).reshape(shape)


def windows(x: Tensor) -> Tensor:
    """(batch, 4, 8, 8) as (batch · windows, 1, places, 4)."""
    return x.permute(0, 2, 3, 1).view(-1, 2, 4, 2, 4, 4).transpose(2, 3).reshape(-1, 1, 16, 4)


def joined(x: Tensor) -> Tensor:
    return x.reshape(-1, 2, 2, 4, 4, 4).transpose(2, 3).reshape(-1, 8, 8, 4)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": F.relu6,
    "clamp": lambda x: x.clamp(min=0.1),
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "mish": F.mish,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "arithmetic": lambda x: (2 - x) / 4 + x * 3 - 1,
    "difference": lambda x: x - F.relu(x),
    "scaled sum": lambda x: torch.add(x, F.relu(x), alpha=0.5),
    "scaled constant": lambda x: torch.add(x, torch.arange(4.0).view(1, 4, 1, 1), alpha=0.5),
    "scaled value": lambda x: torch.sub(torch.arange(4.0).view(1, 4, 1, 1), x, alpha=0.5),
    "negative": lambda x: -x,
    "in place": lambda x: x.relu_().mul_(2).add_(1) + x,
    "chunk": lambda x: torch.cat([x.chunk(2, 1)[1], x.chunk(2, 1)[0]], 1),
    "split": lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    "select": lambda x: torch.cat([x[:, 2].unsqueeze(1), x[:, :1]], 1),
    "strided": lambda x: F.pad(x[:, :, ::2, 1::2], (0, 1, 1, 0, 2, 2)),
    "reflected": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "cropped": lambda x: F.pad(x, (-1, -1, 0, 1)),
    "same padding": lambda x: F.conv2d(x, torch.ones(2, 4, 2, 2), padding="same"),
    "shuffled": lambda x: x.view(-1, 2, 2, 8, 8).transpose(1, 2).reshape(-1, 4, 8, 8),
    "channels last": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    "averages": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "largest": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, 3) + F.adaptive_avg_pool2d(x, (3, 3)),
    "mean": lambda x: x - x.mean((2, 3), keepdim=True) * 0.5,
    "response": lambda x: x / (x.norm(2, (2, 3), True).mean(1, keepdim=True) + 1e-6),
    "gated": lambda x: x * F.hardsigmoid(x.mean((2, 3), keepdim=True)),
    "enlarged": lambda x: F.interpolate(x, scale_factor=2),
    "grouped norm": lambda x: F.group_norm(x, 2),
    "dropped": lambda x: F.dropout2d(F.dropout(x, 0.5, False), 0.5, False),
    "flattened": lambda x: F.linear(x.flatten(1), torch.ones(2, 256)),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.5),
    "softplus": lambda x: x * torch.tanh(F.softplus(x, 1.5)),
    "powers": lambda x: (x**2 + 1).sqrt() + (x.square() + 1).rsqrt() + 1 / (x**2 + 1).reciprocal(),
    "pooled by powers": lambda x: F.avg_pool2d(x.clamp(min=1e-6).pow(torch.tensor([3.0])), 8).pow(1 / 3),
    "instance norm": F.instance_norm,
    "running instance norm": lambda x: F.instance_norm(
        x, torch.full((4,), 0.1), torch.full((4,), 2.0), use_input_stats=False
    ),
    "largest of all": lambda x: x.amax((2, 3), keepdim=True) + x.max(2, keepdim=True)[0],
    "larger": lambda x: torch.max(*x.chunk(2, 1)) + torch.maximum(x[:, :2], torch.full((2, 1, 1), 0.1)),
    "spatial attention": lambda x: x * torch.stack([x.mean(1), x.max(1)[0]], 1).sum(1, True).sigmoid(),
    "sum": lambda x: x * x.sum((2, 3), keepdim=True) + x.sum(1).unsqueeze(1),
    "per image": lambda x: (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True),
    "variance": lambda x: x.var(1, unbiased=False, keepdim=True) + torch.var(x, dim=(2, 3), keepdim=True),
    "channel attention": lambda x: (
        x
        * F.conv1d(x.mean((2, 3)).unsqueeze(1), torch.tensor([[[0.5, 1, 2]]]), torch.ones(1), padding=1).view(
            -1, 4, 1, 1
        )
    ),
    "split attention": lambda x: (x.view(-1, 2, 2, 8, 8) * x.view(-1, 2, 2, 8, 8).softmax(1)).sum(1),
    "unbound": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "padded for a maximum": lambda x: F.max_pool2d(F.pad(x, (1, 0, 1, 0), value=-torch.inf), 3, 2),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear corners": lambda x: F.interpolate(x, size=(13, 5), mode="bilinear", align_corners=True),
    "fraction of a pixel": lambda x: F.interpolate(x, scale_factor=(1.3, 0.7), mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, scale_factor=1.3, mode="bicubic"),
    "against aliasing": lambda x: F.interpolate(x, size=(5, 6), mode="bicubic", antialias=True),
    "transposed convolution": lambda x: F.conv_transpose2d(
        x, table(4, 5, 3, 3), torch.arange(5.0), stride=2, padding=1, output_padding=1
    ),
    "unfolded and folded": lambda x: F.fold(
        F.unfold(x, 3, padding=1, stride=2) * 2, (8, 8), 3, padding=1, stride=2
    ),
    "unfolded": lambda x: F.unfold(x, (3, 2), dilation=2, padding=(1, 2), stride=(2, 1)),
    "windows that overlap": lambda x: x.unfold(2, 4, 2).unfold(3, 3, 1),
    "rolled": lambda x: x.roll((2, -3), (2, 3)),
    "flipped": lambda x: x.flip(2, 3),
    "repeated": lambda x: x.repeat(1, 2, 1, 3).repeat_interleave(2, 3),
    "images repeated": lambda x: (x.repeat_interleave(3, 0) * x.repeat_interleave(3, 0)).view(-1, 3, 4, 8, 8),
    "the batch repeated": lambda x: x.repeat(3, 1, 1, 1).view(3, -1, 4, 8, 8).transpose(0, 1),
    "pixels shuffled": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 4),
    "windows": lambda x: joined(F.layer_norm(windows(x).view(-1, 16, 4), (4,))),
    "attention in windows": lambda x: joined(
        F.scaled_dot_product_attention(windows(x), windows(x), windows(x) * 2, attn_mask=table(16, 16))
    ),
    "convolution of windows": lambda x: F.conv2d(
        x.reshape(-1, 2, 8, 8), table(2, 1, 3, 3), padding=2, dilation=2, groups=2
    ).reshape(-1, 4, 8, 8),
    "strided convolution of windows": lambda x: F.conv2d(
        x.reshape(-1, 2, 8, 8), table(1, 2, 4, 4), stride=3
    ).view(-1, 2, 2, 2),
    "pooled windows": lambda x: F.max_pool2d(F.adaptive_avg_pool2d(x.reshape(-1, 2, 8, 8), 4), 2).view(
        -1, 4, 2, 2
    ),
    "batch norm of tokens": lambda x: F.batch_norm(
        x.flatten(2).transpose(1, 2).flatten(0, 1), torch.arange(4.0), torch.arange(1, 5.0)
    ).reshape(-1, 64, 4),
    "tokens first": lambda x: (
        (x.flatten(2).permute(2, 0, 1).reshape(-1, 4) @ table(4, 4)).view(64, -1, 4).permute(1, 2, 0)
    ),
    "products": lambda x: torch.einsum("bchw,bdhw->bcd", x, x * 2),
    "products by row": lambda x: torch.einsum("bhid, bhjd -> bihj", x, x + 1),
    "rows of a matrix": lambda x: torch.einsum("bchw,dc->bdhw", x, table(5, 4)),
    "rows of a matrix in place": lambda x: torch.einsum("bchw,hcd->bwd", x, table(8, 4, 3)),
    "a product with a table": lambda x: torch.einsum("bchw,hk->bkcw", x, table(8, 3)),
    "a table's product": lambda x: table(3, 4) @ x.flatten(2) + torch.bmm(x[:, :3, 0], x[:, 0]).sum(2, True),
    "masked attention": lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.eye(8).bool()),
    "biased attention": lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=x * 3, scale=0.5),
    "looked up": lambda x: x.flatten(2)[:, :, torch.tensor([[3, 1], [0, 5]])],
    "looked up in two": lambda x: x[:, :, torch.tensor([3, 1])[:, None], torch.tensor([0, 5, 2])],
    "masked": lambda x: torch.where(
        torch.eye(8).bool(), x, x.masked_fill(torch.ones(8, 8).triu().bool(), 3.0)
    ),
    "root mean square": lambda x: F.rms_norm(x, (8,), torch.arange(8.0)),
    "over positions": lambda x: F.avg_pool1d(F.conv1d(x.flatten(2), table(2, 4, 3), stride=2, padding=1), 3),
    "a token more": lambda x: torch.cat(
        [table(1, 1, 4).expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], 1
    ),
    "a larger constant": lambda x: x.mean((2, 3), keepdim=True) + table(8, 8),
    "gated halves": lambda x: F.glu(x, 1),
    "smallest": lambda x: torch.minimum(x, torch.zeros(8)) + x.amin(1, keepdim=True).abs(),
    "exponents": lambda x: 2 / (x.exp() + 1),
    "spread": lambda x: x.mean((2, 3), keepdim=True).expand_as(x).reshape(-1, 256),
    "expanded": lambda x: x * x.mean((2, 3)).view(-1, 4, 1, 1).expand_as(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operator(name: str) -> None:
    torch.manual_seed(0)
    module = Called(FUNCTIONS[name]).eval()
    images = torch.randn(3, *SHAPE)
    network = import_module(module, SHAPE)
    assert not any("dropout" in node.op for node in network.graph.nodes)
    with torch.no_grad():
        assert torch.allclose(Runner(network)(images), module(images), atol=1e-5)


def test_a_shuffle_is_one_operator() -> None:
    network = import_module(Called(FUNCTIONS["shuffled"]), SHAPE)
    assert [node.op for node in network.graph.nodes] == ["conv2d", "channel_shuffle"]


class Branching(Called):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * 2 if x.sum() > 0 else x


class Wrapped(nn.Module):
    """Part of the forward inside a context, or computed again for the backward pass."""

    def __init__(self, wrapping: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> None:
        super().__init__()
        self.wrapping = wrapping
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
        self.outer = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.outer(self.wrapping(self.inner, x))
        return out


def autocast(function: Callable[[Tensor], Tensor], x: Tensor, enabled: bool = False) -> Tensor:
    with torch.autocast("cpu", enabled=enabled):
        return function(x)


def graded(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.enable_grad():
        return autocast(function, x)


def checkpointed(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    out: Tensor = checkpoint(function, x, use_reentrant=False)
    return out


@pytest.mark.parametrize("wrapping", [autocast, graded, checkpointed])
def test_a_forward_in_parts(wrapping: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    module = Wrapped(wrapping).eval()
    images = torch.randn(3, *SHAPE)
    network = import_module(module, SHAPE)
    assert {node.op for node in network.graph.nodes} <= {"conv2d", "relu"}
    with torch.no_grad():
        assert torch.allclose(Runner(network)(images), module(images), atol=1e-5)


class Nested(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stage = nn.Sequential(nn.ReLU(), Called(function))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.stage(x)
        return out


def nan() -> nn.Module:
    module = Called(F.relu)
    with torch.no_grad():
        module.conv.weight[0, 0, 0, :2] = torch.nan
    return module


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.trace(nn.Conv2d(4, 2, 1), torch.rand(1, *SHAPE))  # type: ignore[no-any-return]


FIXED = "The forward should be a fixed sequence of layers on one image batch (batch, channel, height, width)."
ONE_SIZE = (
    "The forward of net works for one batch size only, or makes a plain number of it, as int(x.shape[0]) and "
    "a loop over the images do."
)
REFUSED: dict[str, tuple[Callable[[], nn.Module], type[ModhubError], str]] = {
    "an operator": (
        lambda: Nested(lambda x: x.sort(1)[0]),
        UnsupportedOperatorError,
        "The operator 'aten.sort' in layer 'stage.1' is not one that modhub can store as data. Rewrite that "
        "layer with the operators listed in docs/architectures.md.",
    ),
    "a batch size as a number": (
        lambda: Called(lambda x: x.reshape(int(x.shape[0]), -1)),
        NetworkImportError,
        f"{ONE_SIZE} {FIXED}",
    ),
    "a TorchScript module": (
        traced,
        NetworkImportError,
        "net is a TorchScript module, whose operators cannot be read. Build the network from its Python "
        "class, and load the module's state_dict() into it.",
    ),
    "a mode of an operator": (
        lambda: Nested(lambda x: F.pad(x, (1, 1, 1, 1), mode="circular")),
        UnsupportedOperatorError,
        "The operator 'aten.pad with mode 'circular'' in layer 'stage.1' is not one that modhub can store as "
        "data. Rewrite that layer with the operators listed in docs/architectures.md.",
    ),
    "a power for each channel": (
        lambda: Nested(lambda x: x.relu().pow(torch.arange(4.0).view(4, 1, 1))),
        UnsupportedOperatorError,
        "The operator 'aten.pow to a power that is not one number' in layer 'stage.1' is not one that modhub "
        "can store as data. Rewrite that layer with the operators listed in docs/architectures.md.",
    ),
    "across the batch": (
        lambda: Called(lambda x: x - x.mean(0, keepdim=True)),
        UnsupportedOperatorError,
        "The operator 'aten.mean.dim across the batch' at the top level of the model is not one that modhub "
        "can store as data. Rewrite that layer with the operators listed in docs/architectures.md.",
    ),
    "a branch": (
        lambda: Branching(F.relu),
        NetworkImportError,
        f"The forward of net branches on the values of a tensor, so it is no fixed network. {FIXED}",
    ),
    "one batch size": (
        lambda: Called(lambda x: x.reshape(2, -1)),
        NetworkImportError,
        f"{ONE_SIZE} {FIXED}",
    ),
    "half precision in parts": (
        lambda: Called(partial(autocast, torch.relu, enabled=True)),
        UnsupportedOperatorError,
        "The operator 'autocast to bfloat16' at the top level of the model is not one that modhub can store "
        "as data. Rewrite that layer with the operators listed in docs/architectures.md.",
    ),
    "two outputs": (
        lambda: Called(lambda x: (x, x)),  # type: ignore[arg-type, return-value]
        NetworkImportError,
        "Called returns 2 values; a classifier returns one tensor, the logits. Wrap the model so that it "
        "returns its logits alone.",
    ),
    "an output in a dictionary": (
        lambda: Called(lambda x: {"logits": x}),  # type: ignore[arg-type, return-value]
        NetworkImportError,
        "Called returns a dict; a classifier returns one tensor, the logits. Wrap the model so that it "
        "returns its logits alone.",
    ),
    "an output of its own kind": (
        lambda: Called(lambda x: SimpleNamespace(logits=x)),  # type: ignore[arg-type, return-value]
        NetworkImportError,
        "net returns a SimpleNamespace; a classifier returns one tensor, the logits. Wrap the model so that "
        "it returns its logits alone.",
    ),
    "weights without numbers": (
        lambda: Called(F.relu).to("meta"),
        ParentError,
        "The weight 'row' of net has no data. Load its weights first.",
    ),
    "weights not made yet": (
        lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)),
        ParentError,
        "The weight '1.weight' of net has no data. Load its weights first.",
    ),
    "weights that are no numbers": (
        nan,
        ParentError,
        "The weight 'conv.weight' of net holds 2 values that are not finite numbers. Load weights from a "
        "training run that did not diverge.",
    ),
    "random numbers": (
        lambda: Called(lambda x: x + torch.rand(4, 8, 8)),
        NetworkImportError,
        "net as data answers otherwise than the model on a random image. A layer that changes its input in "
        "place or draws random numbers does this; rewrite it.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    build, kind, message = REFUSED[case]
    with pytest.raises(kind) as caught:
        import_module(build(), SHAPE, name="net")
    assert str(caught.value) == message
    assert capfd.readouterr() == ("", "")


def test_layers_stay_in_the_mode_they_are_in() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4).eval(), nn.Dropout())
    assert "batch_norm" in [node.op for node in import_module(module, SHAPE).graph.nodes]
    assert [each.training for each in module.modules()] == [True, True, False, True]


@pytest.mark.parametrize("wrapper", [nn.DataParallel, partial(torch.compile, backend="eager")])
def test_wrappers_are_taken_off(wrapper: Callable[[nn.Module], nn.Module]) -> None:
    module = Called(F.relu)
    wrapped = import_module(wrapper(module), SHAPE)
    assert wrapped.sha256 == import_module(module, SHAPE).sha256


def test_weights_packed_beside_the_state_dict_are_no_crash() -> None:
    """Quantised layers keep other things than tensors there."""
    packed = Called(F.relu)
    packed.register_module("extra", Packed())
    assert import_module(packed, SHAPE).tensors


class Packed(nn.Module):
    def get_extra_state(self) -> object:
        return "packed"


def test_wrong_input_size() -> None:
    with pytest.raises(NetworkImportError, match=r"net does not run on images of shape \[3, 8, 8\]: "):
        import_module(Called(F.relu), (3, 8, 8), name="net")


def test_weights_shared_by_two_layers_are_stored_once() -> None:
    module = Called(lambda x: x)
    module.function = module.conv  # the convolution, twice
    network = import_module(module, SHAPE)
    assert len(network.graph.nodes) == 2
    assert len(network.tensors) == 2


@pytest.mark.parametrize("name", ["resnet20", "conv3", "digits-plain", "digits-residual"])
def test_built_in_architectures(name: str) -> None:
    architecture = ARCHITECTURES[name]
    module = architecture.build(6).eval()
    images = torch.randn(2, *architecture.input_shape)
    network = import_module(module, architecture.input_shape)
    with torch.no_grad():
        assert torch.allclose(Runner(network)(images), module(images), atol=1e-5)
    assert network.tensors.keys() - module.state_dict().keys() <= {"add_constant.value"}
    assert architecture.head in module.state_dict()


def test_names_follow_the_layers() -> None:
    network = import_module(ARCHITECTURES["resnet20"].build(10), (3, 32, 32))
    names = [node.name for node in network.graph.nodes]
    assert names[:6] == ["conv1", "bn1", "relu", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu"]
    assert names[-2:] == ["mean", "linear"]


class Headed(nn.Module):
    def __init__(self, classes: int, ending: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.base = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 5), nn.ReLU())
        self.head = nn.Linear(5, classes)
        self.ending = ending

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(self.head(self.base(x)))


def test_two_heads_on_one_base_have_one_trunk() -> None:
    one, two = (split_head(import_module(Headed(classes), SHAPE)) for classes in (3, 7))
    assert one[0].sha256 == two[0].sha256
    assert (one[1].weight.shape, two[1].weight.shape) == ((3, 5), (7, 5))
    assert one[0].graph.output == "base.4"


@pytest.mark.parametrize(
    "ending",
    [lambda x: F.log_softmax(x, 1), lambda x: x.softmax(-1), nn.LogSoftmax(dim=1), nn.Softmax(dim=-1)],
    ids=["log_softmax", "softmax", "LogSoftmax", "Softmax"],
)
def test_chances_at_the_end_are_taken_off(ending: Callable[[Tensor], Tensor]) -> None:
    """Many a tutorial's model returns log-probabilities; modules are made of the logits before them."""
    plain, ended = import_module(Headed(3), SHAPE), import_module(Headed(3, ending), SHAPE)
    assert ended.graph.to_dict() == plain.graph.to_dict()
    image = torch.rand(2, *SHAPE)
    assert torch.equal(Runner(ended)(image), Runner(plain)(image))


FOLDED: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "temperature": lambda m, f: m.one(f) / 1.7,
    "a learnt scale and priors": lambda m, f: m.scale * m.one(f) + m.priors,
    "batch norm": lambda m, f: m.norm(m.one(f)),
    "mean of two heads": lambda m, f: (m.one(f) + m.two(f)) / 2,
    "weighted heads": lambda m, f: 0.3 * m.one(f) - 0.7 * m.two(f),
    "mean of stacked heads": lambda m, f: torch.stack([m.one(f), m.two(f)], 1).mean(1),
    "heads after norms": lambda m, f: (m.one(m.before(f)) + m.two(m.behind(f))) / 2,
    "rows of a matrix": lambda m, f: torch.einsum("bf,cf->bc", f, m.one.weight),
    "classes side by side": lambda m, f: torch.cat([m.one(f), m.two(f)], 1) * 2,
    "cosine": lambda m, f: 20 * F.linear(F.normalize(f), F.normalize(m.one.weight)),
}


class Folding(nn.Module):
    """Two heads on the same features, and a function of both."""

    def __init__(self, ending: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.base = nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.one, self.two = nn.Linear(6, 3), nn.Linear(6, 3)
        self.scale, self.priors = nn.Parameter(torch.tensor(3.0)), nn.Parameter(torch.randn(3))
        self.norm, self.before, self.behind = (nn.BatchNorm1d(count) for count in (3, 6, 6))
        for norm in (self.norm, self.before, self.behind):
            for tensor in (*norm.parameters(), *norm.buffers()):
                tensor.data = torch.rand(tensor.shape).to(tensor.dtype) + 0.5
        self.ending = ending

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(self, self.base(x))


@pytest.mark.parametrize("case", FOLDED)
def test_what_is_affine_after_the_last_layer_is_folded_into_the_head(case: str) -> None:
    module = Folding(FOLDED[case]).eval()
    trunk, head = split_head(import_module(module, SHAPE))
    assert head.tail == ()
    assert trunk.graph.output in (("divide", "multiply") if case == "cosine" else ("base.2", "base.3"))
    images = torch.rand(3, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(Runner(head.join(trunk))(images), module(images), atol=1e-5, rtol=1e-5)


def test_stacked_heads_on_different_features_are_one_head_on_all_of_them() -> None:
    module = Folding(lambda m, f: torch.stack([m.one(f), m.two(f.sigmoid())]).mean(0)).eval()
    trunk, head = split_head(import_module(module, SHAPE))
    assert (head.weight.shape, head.tail) == ((3, 12), ())
    images = torch.rand(3, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(Runner(head.join(trunk))(images), module(images), atol=1e-5, rtol=1e-5)


def test_a_scale_before_the_tail_of_a_head() -> None:
    """Positive ones pass a relu; a shift does not."""
    net = nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module = Wrapped(lambda inner, x: 2 * inner(x))
    module.inner, module.outer = net, nn.Identity()
    trunk, head = split_head(import_module(module, SHAPE))
    images = torch.rand(3, *SHAPE) - 0.5
    with torch.no_grad():
        torch.testing.assert_close(Runner(head.join(trunk))(images), module(images))
    assert head.tail == ("relu", "average", "flatten")
    module.wrapping = lambda inner, x: inner(x) - 1
    with pytest.raises(ParentError, match=r"'scale_shift' .* mixes or reshapes the classes"):
        split_head(import_module(module, SHAPE))


@pytest.mark.parametrize(
    "ending",
    [
        torch.sigmoid,
        lambda x: x.squeeze(1),
        lambda x: x.sigmoid().squeeze(),
        lambda x: x[:, 0],
        torch.flatten,
    ],
    ids=["sigmoid", "squeeze", "sigmoid squeeze", "select", "flatten"],
)
def test_what_follows_a_single_logit_is_taken_off(ending: Callable[[Tensor], Tensor]) -> None:
    plain, ended = import_module(Headed(1), SHAPE), import_module(Headed(1, ending), SHAPE)
    assert ended.graph.to_dict() == plain.graph.to_dict()


IDIOMS: dict[str, Callable[[Tensor], Tensor]] = {
    "squeeze": lambda x: x.mean((2, 3), keepdim=True).squeeze(),
    "length": lambda x: x.reshape(len(x), -1),
    "extent": lambda x: x.view(x.shape[0], -1),
    "normalised": lambda x: Normalize([0.4, 0.5, 0.6, 0.7], [0.2, 0.2, 0.3, 0.3])(x),
    "normalised by a function": lambda x: normalize(x, [0.4, 0.5, 0.6, 0.7], [0.2, 0.2, 0.3, 0.3]),
    "one image differs": lambda x: x if len(x) > 1 else x * 1,
}


@pytest.mark.parametrize("case", IDIOMS)
def test_idioms(case: str) -> None:
    torch.manual_seed(0)
    module = Called(IDIOMS[case]).eval()
    images = torch.randn(3, *SHAPE)
    length = builtins.len
    network = import_module(module, SHAPE)
    assert builtins.len is length
    with torch.no_grad():
        assert torch.allclose(Runner(network)(images), module(images), atol=1e-5)


def test_a_softmax_inside_is_no_ending() -> None:
    with pytest.raises(UnsupportedOperatorError, match="softmax"):
        import_module(Headed(3, lambda x: 2 * x.softmax(1)), SHAPE)


ENDINGS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "softmax-free": (
        torch.sigmoid,
        "The model ends with 'sigmoid' (sigmoid) after its last weighted layer, which mixes or reshapes the "
        "classes. Let the model return its logits.",
    ),
    "no classes": (
        lambda x: x.reshape(-1, 3, 1),
        "The model ends with 'reshape' (reshape) after its last weighted layer, which mixes or reshapes the "
        "classes. Let the model return its logits.",
    ),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_no_head(case: str) -> None:
    ending, message = ENDINGS[case]
    with pytest.raises(ParentError) as caught:
        split_head(import_module(Headed(3, ending), SHAPE))
    assert str(caught.value) == message


HEADLESS: dict[str, tuple[nn.Module, str]] = {
    "nothing but an activation": (
        nn.ReLU(),
        "The model has no layer whose outputs are the classes. A parent ends in a linear layer or a 1×1 "
        "convolution with one row of weights per class.",
    ),
    "a wide convolution": (
        nn.Sequential(nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "The classes come out of '0', a convolution that is not 1×1; no row of its weights is a class. Let "
        "the model end in a linear layer or a 1×1 convolution.",
    ),
    "an answer for every position": (
        nn.Conv2d(4, 3, 1),
        "The model's output has the shape [3, 8, 8] per image; a classifier gives one logit per class. Let "
        "the model return (batch, classes).",
    ),
}


@pytest.mark.parametrize("case", HEADLESS)
def test_no_layer_makes_the_classes(case: str) -> None:
    module, message = HEADLESS[case]
    with pytest.raises(ParentError) as caught:
        split_head(import_module(module, SHAPE))
    assert str(caught.value) == message


def test_a_parent_in_half_precision_is_stored_in_single() -> None:
    torch.manual_seed(0)
    module = Called(F.relu).eval().bfloat16()
    network = import_module(module, SHAPE)
    assert {tensor.dtype for tensor in network.tensors.values()} == {torch.float32}
    images = torch.rand(3, *SHAPE).bfloat16()
    with torch.no_grad():
        wanted = module(images).float()
        torch.testing.assert_close(Runner(network)(images.float()), wanted, atol=0.02, rtol=0.02)


def test_a_head_that_does_not_fit() -> None:
    trunk, head = split_head(import_module(Headed(3), SHAPE))
    with pytest.raises(ParentError) as caught:
        head.join(trunk, torch.ones(2, 4), torch.ones(2))
    assert str(caught.value) == "A head of weight [2, 4] and bias [2] does not fit a trunk of 5 features."
