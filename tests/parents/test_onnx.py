"""ONNX files as parents: both exporters of torch, every operator beside ONNX Runtime, and what is refused."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import modhub
from modhub.composition import compose, parts_of
from modhub.errors import ModhubError, NetworkImportError, ParentError
from modhub.importing.onnx_file import read_onnx
from modhub.importing.onnx_network import OnnxNetwork
from modhub.manifest import InputSpec
from modhub.nets import Runner, split_head
from modhub.parents import load_parent

INPUT = InputSpec(channels=3, height=16, width=16, mean=(0.0,) * 3, std=(1.0,) * 3)


class Tokens(nn.Module):
    """Convolutions, then attention over tokens with a class token before them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.GELU(), nn.MaxPool2d(2))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.qkv, self.head = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(images.shape[0], -1, -1), x], 1)
        batch, count, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, count, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(
            batch, count, width
        )
        return self.head(x[:, 0]).softmax(-1)


def exported(net: nn.Module, path: Path, *, dynamo: bool, alone: bool, **settings: Any) -> Path:
    images = torch.rand(1 if alone else 2, 3, 16, 16)
    if dynamo:
        settings |= {"verbose": False} | ({} if alone else {"dynamic_shapes": ({0: "batch"},)})
    elif not alone:
        settings |= {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (images,), str(path), dynamo=dynamo, **settings)
    return path


@pytest.mark.parametrize("alone", [False, True], ids=["open batch", "one image"])
@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "dynamo"])
def test_files_of_both_exporters(dynamo: bool, alone: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Tokens()
    # dynamo writes the weights beside the file.
    path = exported(net, tmp_path / "net.onnx", dynamo=dynamo, alone=alone)
    parent = load_parent(f"onnx:{path}")
    assert (parent.name, parent.architecture, parent.input) == ("net", "onnx:net.onnx", INPUT)
    network = parent.network()
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(Runner(network)(images).softmax(1), net(images), rtol=1e-4, atol=1e-4)
    _, head = split_head(network)
    torch.testing.assert_close(head.weight, net.head.weight.detach())


def model(
    nodes: Sequence[Any],
    tensors: Mapping[str, Any] | None = None,
    *,
    opset: int = 18,
    shape: Sequence[Any] = ("batch", 3, 8, 8),
    number: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
) -> Any:
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", number, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (tensors or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def node(op: str, inputs: str, **attributes: Any) -> Any:
    """One operator from `inputs`, a comma between them, to y."""
    return helper.make_node(op, inputs.split(","), ["y"], name=f"the_{op}", **attributes)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def floats(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).uniform(0.5, 1.5, shape).astype(np.float32)


def number(value: float) -> Any:
    return np.array(value, np.float32)


LAYER = {"w": floats(4, 3, 3, 3), "b": floats(4)}
STATISTICS = {name: floats(3) for name in "abcd"}
OPERATORS: list[tuple[str, str, dict[str, Any], dict[str, Any], int]] = [
    ("Conv", "x,w,b", {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}, LAYER, 18),
    ("Conv", "x,w", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, {"w": floats(3, 1, 2, 2)}, 18),
    ("Conv", "x,w", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, LAYER, 18),
    ("ConvTranspose", "x,w", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, {"w": floats(3, 2, 3, 3)}, 18),
    ("BatchNormalization", "x,a,b,c,d", {"epsilon": 0.01}, STATISTICS, 18),
    ("InstanceNormalization", "x,a,b", {}, STATISTICS, 18),
    ("GroupNormalization", "x,a,b", {"num_groups": 3}, STATISTICS, 21),
    ("LayerNormalization", "x,a,b", {"axis": -1, "epsilon": 0.01}, {"a": floats(8), "b": floats(8)}, 18),
    ("MaxPool", "x", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, {}, 18),
    ("MaxPool", "x", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "dilations": [2, 2]}, {}, 18),
    ("AveragePool", "x", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, {}, 18),
    ("AveragePool", "x", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, {}, 18),
    ("GlobalMaxPool", "x", {}, {}, 18),
    ("Clip", "x,low,high", {}, {"low": number(0.2), "high": number(0.7)}, 18),
    ("Clip", "x,,high", {}, {"high": number(0.7)}, 18),
    ("Clip", "x", {"min": 0.2, "max": 0.6}, {}, 9),
    ("Softmax", "x", {}, {}, 11),
    ("Softmax", "x", {}, {}, 13),
    ("LogSoftmax", "x", {"axis": 1}, {}, 13),
    ("HardSigmoid", "x", {}, {}, 18),
    ("HardSwish", "x", {}, {}, 18),
    ("Elu", "x", {"alpha": 0.3}, {}, 18),
    ("Selu", "x", {}, {}, 18),
    ("Celu", "x", {"alpha": 0.3}, {}, 18),
    ("Gelu", "x", {"approximate": "tanh"}, {}, 20),
    ("PRelu", "x,s", {}, {"s": floats(3, 1, 1)}, 18),
    ("Pow", "x,e", {}, {"e": ints(2)}, 18),
    ("Mean", "x,a", {}, {"a": floats(8)}, 18),
    ("ReduceMean", "x,axes", {"keepdims": 0}, {"axes": ints(-1, -2)}, 18),
    ("ReduceMean", "x", {"axes": [2, 3]}, {}, 13),
    ("ReduceSum", "x,axes", {}, {"axes": ints(1)}, 18),
    ("ReduceL2", "x,axes", {}, {"axes": ints(1)}, 18),
    ("LpNormalization", "x", {"axis": 1}, {}, 18),
    ("Reshape", "x,s", {}, {"s": ints(0, 3, -1)}, 18),
    ("Flatten", "x", {"axis": 2}, {}, 18),
    ("Transpose", "x", {"perm": [0, 2, 3, 1]}, {}, 18),
    ("Unsqueeze", "x,axes", {}, {"axes": ints(-1, 1)}, 18),
    ("Unsqueeze", "x", {"axes": [1]}, {}, 11),
    ("Slice", "x,a,b,c,d", {}, {"a": ints(7, 1), "b": ints(-9, 3), "c": ints(2, 1), "d": ints(-2, 1)}, 18),
    ("Slice", "x", {"starts": [1], "ends": [99], "axes": [3]}, {}, 9),
    ("Gather", "x,i", {"axis": 2}, {"i": np.array([[0, -1], [3, 3]])}, 18),
    ("Pad", "x,p,v", {}, {"p": ints(0, 0, 1, 2, 0, 0, 0, 3), "v": number(0.5)}, 18),
    ("Pad", "x,p", {"mode": "reflect"}, {"p": ints(0, 0, 1, 2, 0, 0, 0, 3)}, 18),
    ("Pad", "x,p", {"mode": "edge"}, {"p": ints(0, 0, -1, 2, 0, 0, 0, 3)}, 18),
    ("Pad", "x", {"pads": [0, 0, 1, 1, 0, 0, 0, 0], "value": 0.25}, {}, 9),
    ("Tile", "x,r", {}, {"r": ints(1, 2, 1, 3)}, 18),
    ("Expand", "x,s", {}, {"s": ints(2, 1, 3, 1, 1)}, 18),
    ("DepthToSpace", "z", {"blocksize": 2}, {}, 18),
    ("DepthToSpace", "z", {"blocksize": 2, "mode": "CRD"}, {}, 18),
    ("SpaceToDepth", "x", {"blocksize": 2}, {}, 18),
    ("Upsample", "x,s", {}, {"s": np.array([1, 1, 2, 3], np.float32)}, 9),
    ("Resize", "x,,s", {}, {"s": np.array([1, 1, 2, 3], np.float32)}, 18),
    *(
        ("Resize", "x,,,s", {"mode": mode, **settings}, {"s": ints(2, 3, *size)}, 18)
        for mode, settings, size in (
            ("nearest", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, (5, 13)),
            ("linear", {}, (5, 13)),
            ("linear", {"coordinate_transformation_mode": "align_corners"}, (5, 13)),
            ("linear", {"antialias": 1, "exclude_outside": 1}, (5, 3)),
            ("cubic", {"antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5}, (5, 3)),
            ("cubic", {}, (5, 13)),
        )
    ),
    ("Trilu", "x", {"upper": 0}, {}, 18),
    ("Einsum", "x,m", {"equation": "bchw,cd->bdhw"}, {"m": floats(3, 2)}, 18),
    ("MatMul", "x,m", {}, {"m": floats(3, 8, 5)}, 18),
]


@pytest.mark.parametrize("case", OPERATORS, ids=lambda case: f"{case[0]} {list(case[2])} {case[4]}")
def test_an_operator_answers_as_in_onnx_runtime(
    case: tuple[str, str, dict[str, Any], dict[str, Any], int], tmp_path: Path
) -> None:
    op, inputs, attributes, tensors, opset = case
    nodes = [node(op, inputs, **attributes)]
    if op == "Conv" and tensors["w"].shape[1] == 1:
        nodes = [node(op, inputs, group=3, **attributes)]
    if inputs.startswith("z"):
        nodes.insert(0, helper.make_node("Concat", ["x"] * 4, ["z"], axis=1))
    path = tmp_path / "net.onnx"
    onnx.save(model(nodes, tensors, opset=opset), path)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 0.5
    session = onnxruntime.InferenceSession(path)
    (expected,) = session.run(None, {"x": images.numpy()})
    with torch.no_grad():
        answer = OnnxNetwork(read_onnx(path))(images)
    np.testing.assert_allclose(answer.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_weights_that_are_standardised_while_the_file_runs(tmp_path: Path) -> None:
    """As TorchScript's exporter writes the convolutions of BiT."""
    nodes = [
        helper.make_node("Reshape", ["w", "row"], ["r"]),
        helper.make_node("BatchNormalization", ["r", *"abcd"], ["n", "mean", "var"], training_mode=1),
        helper.make_node("Reshape", ["n", "shape"], ["k"]),
        helper.make_node("Conv", ["x", "k"], ["y"]),
    ]
    tensors = {"w": floats(4, 3, 3, 3), "row": ints(1, 4, -1), "shape": ints(4, 3, 3, 3)}
    check(nodes, tensors | {name: floats(4) for name in "abcd"}, tmp_path / "net.onnx")


def test_a_softmax_that_is_kept_from_being_no_number(tmp_path: Path) -> None:
    """As torch.export's exporter writes attention."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["s"], axis=-1),
        helper.make_node("IsNaN", ["s"], ["nan"]),
        helper.make_node("Where", ["nan", "zero", "s"], ["y"]),
    ]
    check(nodes, {"zero": number(0)}, tmp_path / "net.onnx")


def check(nodes: Sequence[Any], tensors: Mapping[str, Any], path: Path) -> None:
    onnx.save(model(nodes, tensors), path)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 2 - 0.5
    (expected,) = onnxruntime.InferenceSession(path).run(None, {"x": images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(OnnxNetwork(read_onnx(path))(images), expected, rtol=1e-4, atol=1e-4)


def test_channels_indexed_by_a_list_answer_as_in_onnx_runtime(tmp_path: Path) -> None:
    """As both exporters write `x[:, [2, 0, 2]]`: not by Gather."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2, 3]),
        helper.make_node("GatherND", ["t", "i"], ["g"]),
        helper.make_node("Transpose", ["g"], ["y"], perm=[1, 0, 2, 3]),
    ]
    path = tmp_path / "net.onnx"
    onnx.save(model(nodes, {"i": np.array([[2], [0], [-1]])}), path)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    (expected,) = onnxruntime.InferenceSession(path).run(None, {"x": images.numpy()})
    with torch.no_grad():
        np.testing.assert_array_equal(OnnxNetwork(read_onnx(path))(images).numpy(), expected)


NCHW = "Export the network with images as (batch, channel, height, width)."
LISTED = "Rewrite that layer with the operators listed in docs/architectures.md."


def head(*nodes: Any) -> list[Any]:
    """`nodes` from x to h, then a linear layer of the mean of every channel."""
    return [
        *nodes,
        helper.make_node("GlobalAveragePool", ["h"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], name="fc", transB=1),
    ]


FC = {"w": floats(4, 3), "b": floats(4)}


def through(op: str, *inputs: str, **attributes: Any) -> list[Any]:
    return head(helper.make_node(op, ["x", *inputs], ["h"], name="odd", **attributes))


def branch() -> Any:
    body = helper.make_graph([], "b", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)])
    return helper.make_node("If", ["c"], ["h"], name="odd", then_branch=body, else_branch=body)


REFUSED: dict[str, tuple[Any, str]] = {
    "an operator": (
        model(through("LRN", size=3), FC),
        f"The operator 'LRN' in layer 'odd' is not one that modhub can store as data. {LISTED}",
    ),
    "an attribute": (
        model(through("MaxPool", kernel_shape=[2, 2], storage_order=1), FC),
        "The operator 'MaxPool that is not two-dimensional' in layer 'odd' is not one that modhub can store "
        f"as data. {LISTED}",
    ),
    "a new attribute": (
        model(through("Relu", slope=0.5), FC),
        f"The operator 'Relu with 'slope'' in layer 'odd' is not one that modhub can store as data. {LISTED}",
    ),
    "a branch": (
        model(head(branch()), FC | {"c": np.array(True)}),
        "The node 'odd' (If) of 'net.onnx' has a graph of its own, which is not read. Export the network "
        "without branches and loops.",
    ),
    "somebody's operator": (
        model(through("Relu", domain="com.acme"), FC),
        "The node 'odd' of 'net.onnx' is the operator com.acme.Relu, which is not ONNX's own. Export the "
        "network with ONNX's own operators.",
    ),
    "channels last": (
        model(through("Relu"), FC, shape=("n", 8, 8, 3)),
        "'net.onnx' takes images as (batch, height, width, channel), ? × 8 × 8 × 3; channels come second "
        f"here. {NCHW}",
    ),
    "no images": (
        model(through("Relu"), FC, shape=("n", 5)),
        f"'net.onnx' takes ? × 5, not images of 1 or 3 channels (batch, channel, height, width). {NCHW}",
    ),
    "whole numbers": (
        model(through("Relu"), FC, number=TensorProto.INT32),
        f"'net.onnx' takes images of type INT32, not decimals or UINT8. {NCHW}",
    ),
    "two outputs": (
        model(through("Relu"), FC, outputs=("y", "f")),
        "'net.onnx' has 2 outputs ('y', 'f'); a classifier has one, the logits. Export it with that one "
        "alone.",
    ),
    "an old opset": (
        model(through("Relu"), FC, opset=5),
        "'net.onnx' uses version 5 of ONNX's operators; 7 to 26 are read. Export it again with one of these "
        "as opset_version.",
    ),
    "eight at a time": (
        model(through("Relu"), FC, shape=(8, 3, 8, 8)),
        "'net.onnx' takes 8 images at a time, no more and no fewer. Export it with an open batch size, or "
        "for one image.",
    ),
    "a value that is not there": (
        model(through("Add", "nothing"), FC),
        "The node 'odd' of 'net.onnx' reads 'nothing', which is no earlier value. Fetch or export the file "
        "again.",
    ),
    "quantised": (
        model(through("QLinearConv"), FC),
        f"The operator 'QLinearConv' in layer 'odd' is not one that modhub can store as data. {LISTED}",
    ),
    "too much of nothing": (
        model(
            head(
                helper.make_node("ConstantOfShape", ["s"], ["z"], name="huge"),
                helper.make_node("Add", ["x", "z"], ["h"]),
            ),
            FC | {"s": ints(1, 3, 1 << 20, 1 << 20)},
        ),
        "The operator 'ConstantOfShape that makes 1,649,267,441,664 numbers of one image' in layer 'huge' is "
        f"not one that modhub can store as data. {LISTED}",
    ),
    "too much of an image": (
        model(through("Tile", "s"), FC | {"s": ints(1, 1, 1 << 20, 1 << 20)}),
        "The operator 'Tile that makes 211,106,232,532,992 numbers of one image' in layer 'odd' is not one "
        f"that modhub can store as data. {LISTED}",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = REFUSED[case]
    Path("net.onnx").write_bytes(content.SerializeToString())
    with pytest.raises(ModhubError) as caught:
        load_parent("onnx:net.onnx").network()
    assert str(caught.value).replace(f"{tmp_path}/", "") == message


def test_no_file_and_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParentError, match=r"^The file 'net.onnx' does not exist\. A parent is onnx:FILE\.$"):
        load_parent("onnx:net.onnx")
    Path("net.onnx").write_bytes(b"no protobuf at all")
    with pytest.raises(ParentError, match=r"^'net.onnx' is not a valid ONNX file \("):
        load_parent("onnx:net.onnx")
    with pytest.raises(ParentError, match=r"^An ONNX file has its own weights: weights cannot"):
        load_parent("onnx:net.onnx", weights=Path("w.safetensors"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("../secret", "The path '../secret' does not stay inside its repository."),
        ("/etc/passwd", "The path '/etc/passwd' does not stay inside its repository."),
        ("link", "The constant 'w' of 'in/net.onnx' is in 'link', which leaves the file's folder."),
        ("gone", "The constant 'w' of 'in/net.onnx' is in 'gone', which is not there."),
        ("short", "The constant 'w' of 'in/net.onnx' takes 48 bytes, which 'short' does not have at 0."),
    ],
)
def test_weights_beside_the_file(
    place: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("secret").write_bytes(b"s" * 48)
    Path("in/link").symlink_to("../secret")
    Path("in/short").write_bytes(b"s" * 47)
    content = model(through("Relu"), FC)
    (weight,) = (each for each in content.graph.initializer if each.name == "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", place
    Path("in/net.onnx").write_bytes(content.SerializeToString())
    with pytest.raises(ModhubError) as caught:
        load_parent("onnx:in/net.onnx")
    assert caught.value.message == message


def test_a_constant_of_another_size_than_it_says(tmp_path: Path) -> None:
    content = model(through("Relu"), FC)
    content.graph.initializer[0].dims[0] = 1 << 40
    (tmp_path / "net.onnx").write_bytes(content.SerializeToString())
    with pytest.raises(ModhubError, match=r"its numbers are 48 where 13,194,139,533,312 belong\."):
        load_parent(f"onnx:{tmp_path / 'net.onnx'}")


def test_a_file_that_mixes_the_images_of_a_batch_is_refused(tmp_path: Path) -> None:
    """Exported for one image, it may count what is no batch as one."""
    content = model(
        [
            helper.make_node("Reshape", ["x", "s"], ["r"], name="mix"),
            helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
            helper.make_node("Gemm", ["m", "w", "b"], ["y"], transB=1),
        ],
        {"s": ints(3, 64), "axes": ints(0), "w": floats(4, 64), "b": floats(4)},
        shape=(1, 3, 8, 8),
    )
    onnx.save(content, tmp_path / "net.onnx")
    with pytest.raises(NetworkImportError):
        load_parent(f"onnx:{tmp_path / 'net.onnx'}").network()


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    content = model(through("Relu"), FC, number=TensorProto.UINT8, shape=("n", 3, "h", "w"))
    content.graph.node.insert(0, helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT))
    content.graph.node[1].input[0] = "c"
    helper.set_model_props(content, {"names": "{0: 'cat', 1: 'dog', 2: 'fox', 3: 'owl'}"})
    onnx.save(content, tmp_path / "net.onnx")
    parent = load_parent(f"onnx:{tmp_path / 'net.onnx'}")
    assert (parent.labels, parent.input, parent.assumed) == (("cat", "dog", "fox", "owl"), None, False)
    network = parent.network(InputSpec(channels=3, height=6, width=9, mean=(0.0,) * 3, std=(1.0,) * 3))
    assert network.graph.input_shape == (3, 6, 9)


class Heard(modhub.Reporter):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_from_a_file_to_a_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    path = exported(net, tmp_path / "net.onnx", dynamo=False, alone=True)
    reporter = Heard()
    modules = modhub.decompose(f"onnx:{path}", None, labels=["cat", "dog", "owl"], reporter=reporter)
    assert reporter.warnings == [
        "Nothing says how 'net' normalises its input: without --mean and --std its values are taken as they "
        "are, from 0 to 1."
    ]
    classifier = compose(parts_of(modules))
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        margins = net(images / 255)
        scores = classifier(images)
    torch.testing.assert_close(scores.softmax(1), margins.softmax(1), rtol=1e-4, atol=1e-4)
