"""Parent strings: what each leads to, and one sentence for each way it can fail."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from modhub.api.decompose import open_parent
from modhub.data import ImageSet
from modhub.decomposition import DecomposeOptions, Parent
from modhub.decomposition.assembly import assemble
from modhub.decomposition.data_free import without_images
from modhub.decomposition.parent import aligned, classes_named
from modhub.errors import IntegrityError, ManifestError, NotFoundError, ParentError
from modhub.files import sha256_of_file
from modhub.importing import import_module
from modhub.labels import LabelIndex
from modhub.manifest import InputSpec
from modhub.nets import ARCHITECTURES, Network, Runner
from modhub.parents import distinct_labels, imagenet_labels, imagenet_synonyms, load_parent, write_parent
from modhub.parents.base import parsed_arguments
from modhub.parents.repository import _tame, repository_parent

INPUT = InputSpec(channels=1, height=8, width=8, mean=(0.5,), std=(0.25,))
CHECK = "Check that the weights are those of this architecture."


def digits(classes: int = 4) -> nn.Module:
    return ARCHITECTURES["digits-plain"].build(classes)


def saved(path: Path, module: nn.Module, **changes: torch.Tensor | None) -> Path:
    """A state dict with some tensors put in place of others; None takes one out."""
    tensors = {**module.state_dict(), **{key.replace("__", "."): each for key, each in changes.items()}}
    save_file({key: each for key, each in tensors.items() if each is not None}, path)
    return path


def test_built_in(tmp_path: Path) -> None:
    module = digits()
    found = load_parent("modhub:digits-plain", weights=saved(tmp_path / "w.safetensors", module))
    assert (found.name, found.architecture, found.labels) == ("digits-plain", "modhub:digits-plain", None)
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(Runner(found.network())(images), module.eval()(images), atol=1e-6)


def test_weights_of_a_parallel_wrapper(tmp_path: Path) -> None:
    tensors = {f"module.{key}": each for key, each in digits().state_dict().items()}
    save_file(tensors, tmp_path / "w.safetensors")
    assert load_parent("modhub:digits-plain", weights=tmp_path / "w.safetensors").name == "digits-plain"


BAD_WEIGHTS: dict[str, tuple[dict[str, torch.Tensor | None], str]] = {
    "a key missing": (
        {"hidden__bias": None},
        f"'w.safetensors' lacks 'hidden.bias', which digits-plain needs. {CHECK}",
    ),
    "a key too many": (
        {"extra": torch.ones(1)},
        f"'w.safetensors' has 'extra', for which digits-plain has no place. {CHECK}",
    ),
    "another shape": (
        {"hidden__bias": torch.ones(3)},
        f"'hidden.bias' in 'w.safetensors' has the shape [3]; digits-plain needs [64]. {CHECK}",
    ),
    "no number": (
        {"hidden__bias": torch.full((64,), torch.nan)},
        "'hidden.bias' in 'w.safetensors' holds values that are not finite numbers. Load weights from a "
        "training run that did not diverge.",
    ),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_bad_weights(case: str, tmp_path: Path) -> None:
    changes, message = BAD_WEIGHTS[case]
    with pytest.raises(ParentError) as caught:
        load_parent("modhub:digits-plain", weights=saved(tmp_path / "w.safetensors", digits(), **changes))
    assert str(caught.value) == message


def test_a_truncated_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", digits())
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ParentError, match="is not a valid safetensors file"):
        load_parent("modhub:digits-plain", weights=path)


GRAMMAR = (
    "A parent is modhub:NAME, torchvision:NAME, timm:NAME, hf:REPO[@REVISION], onnx:FILE, FILE.py:CALLABLE "
    "or a directory with graph.json, weights.safetensors and parent.json."
)
NO_PARENT = {
    "nonsense": f"Unknown parent 'nonsense'. {GRAMMAR}",
    "modhub:resnet21": "Unknown built-in network 'resnet21'. There are conv3, digits-plain, "
    "digits-residual, resnet110, resnet20, resnet32, resnet44, resnet56.",
    "modhub:resnet20": "modhub:resnet20 comes without weights. Pass trained ones with --weights "
    "FILE.safetensors.",
    "torchvision:resnet19": "Unknown torchvision classification network 'resnet19'. Did you mean resnet18, "
    "resnet152, resnet101?",
    "none.py:build": "The file 'none.py' does not exist. A parent is FILE.py:CALLABLE.",
}


@pytest.mark.parametrize("source", NO_PARENT)
def test_no_parent(source: str) -> None:
    with pytest.raises(ParentError) as caught:
        load_parent(source)
    assert str(caught.value) == NO_PARENT[source]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.safetensors", "The weights file 'none.safetensors' does not exist. Check its path."),
        (
            "model.pth",
            "The weights file 'model.pth' does not exist. Check its path.",
        ),
    ],
)
def test_no_weights(name: str, message: str) -> None:
    with pytest.raises(ParentError) as caught:
        load_parent("modhub:resnet20", weights=Path(name))
    assert str(caught.value) == message


@pytest.mark.parametrize("classes", [1000, 7])
def test_torchvision(classes: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", models.squeezenet1_1(num_classes=classes))
    found = load_parent("torchvision:squeezenet1_1", weights=path)
    assert found.input == InputSpec(
        channels=3,
        height=224,
        width=224,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        resize=256,
        crop=True,
    )
    # A thousand classes may be others than ImageNet's.
    assert (found.labels, found.dataset) == (None, None)


def test_published_weights_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = models.squeezenet1_1()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    mark = sha256_of_file(tmp_path / "w.pth")[:8]
    (weights,) = models.SqueezeNet1_1_Weights
    published = dataclasses.replace(weights.value, url=f"https://example.org/squeezenet1_1-{mark}.pth")
    monkeypatch.setattr(weights, "_value_", published)
    found = load_parent("torchvision:squeezenet1_1", weights=tmp_path / "w.pth")
    assert found.labels is not None
    assert (len(set(found.labels)), found.labels[0], found.dataset) == (1000, "tench", "imagenet-1k")


@pytest.mark.parametrize("classes", [1000, 3])
def test_weights_of_timm_from_a_file_have_no_names(classes: int, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    path = saved(tmp_path / "w.safetensors", timm.create_model("test_resnet", num_classes=classes))
    found = load_parent("timm:test_resnet", weights=path)
    assert (found.labels, found.dataset, found.license) == (None, None, None)


def test_googlenets_own_normalisation_is_asked_for(tmp_path: Path) -> None:
    net = models.googlenet(num_classes=3, aux_logits=False, init_weights=False)
    path = saved(tmp_path / "w.safetensors", net)
    with pytest.raises(ParentError) as caught:
        load_parent("torchvision:googlenet", weights=path)
    assert str(caught.value) == (
        "'w.safetensors' does not say whether googlenet was trained with 'transform_input', as weights are "
        "that were tuned from torchvision's own. Say it with --arg transform_input=true or --arg "
        "transform_input=false."
    )
    for said in (True, False):
        found = load_parent(
            "torchvision:googlenet", weights=path, arguments={"transform_input": str(said).lower()}
        )
        assert found.model.transform_input is said  # type: ignore[union-attr]


def test_imagenets_names_can_be_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", models.squeezenet1_1())
    options = DecomposeOptions(weights=path, labels=["imagenet-1k"])
    assert open_parent("torchvision:squeezenet1_1", None, options).labels[:2] == ("tench", "goldfish")
    with pytest.raises(ParentError) as caught:
        open_parent("torchvision:squeezenet1_1", None, DecomposeOptions(weights=path, labels=["cat", "dog"]))
    assert caught.value.hint == (
        "Give one label per row of its last layer, in that order, with --labels, or --labels imagenet-1k if "
        "these are ImageNet's."
    )


def test_labels_stand_once() -> None:
    assert distinct_labels(["crane", "cat", "crane"]) == ("crane", "cat", "crane (2)")


def test_arguments() -> None:
    assert parsed_arguments({"a": "1", "b": "0.5", "c": "true", "d": "None", "e": "x"}) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": None,
        "e": "x",
    }
    assert parsed_arguments({"a": 1, "b": 0.5, "c": True, "d": None, "e": (1, 2)}) == {
        "a": 1,
        "b": 0.5,
        "c": True,
        "d": None,
        "e": (1, 2),
    }


OWN = """
from torch import nn

def build(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(width * 36, 3))

def stated(**more):
    net = build()
    net.input_spec = {"height": 64, "width": 48, "resize": 72, "interpolation": "bicubic", **more}
    return net

def number():
    return 3

def broken():
    raise KeyError("x")
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_own_code(own: Path) -> None:
    found = load_parent(f"{own}:build", arguments={"width": "6"})
    assert (found.name, found.architecture) == ("build", "own.py:build")
    assert found.network(INPUT).graph.node["0"].attributes["out_channels"] == 6
    with pytest.raises(ParentError) as caught:
        found.network()
    message = "The input size of build is unknown. Pass --input-size, --mean and --std."
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("built", {}, "'{}' has no callable 'built'. It has broken, build, number, stated."),
        (
            "number",
            {},
            "number in '{}' returns a int; it should return a torch.nn.Module. Name a class of modules, or a "
            "function that builds one.",
        ),
        ("broken", {}, "broken in '{}' failed: KeyError: 'x'. Check --arg, and the file."),
        (
            "build",
            {"depth": "2"},
            "build in '{}' cannot be called like this: got an unexpected keyword argument 'depth'. "
            "Check --arg.",
        ),
    ],
)
def test_own_code_that_fails(own: Path, name: str, arguments: Mapping[str, str], message: str) -> None:
    with pytest.raises(ParentError) as caught:
        load_parent(f"{own}:{name}", arguments=arguments)
    assert str(caught.value) == message.format(own)


def written(directory: Path) -> Network:
    network = import_module(digits().eval(), (1, 8, 8))
    write_parent(
        directory,
        network,
        name="plain",
        architecture="modhub:digits-plain",
        labels=["0", "1", "2", "3"],
        input=INPUT,
        license="mit",
    )
    return network


def test_a_directory(tmp_path: Path) -> None:
    network = written(tmp_path / "one")
    written_again = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    found = load_parent(str(tmp_path / "one"))
    assert isinstance(found.model, Network)
    assert found.network().sha256 == network.sha256
    assert (found.labels, found.input, found.license) == (("0", "1", "2", "3"), INPUT, "mit")
    write_parent(
        tmp_path / "two",
        found.network(),
        name=found.name,
        architecture=found.architecture,
        labels=found.labels or (),
        input=INPUT,
        license=found.license,
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()} == written_again


def test_a_directory_of_two_parents(tmp_path: Path) -> None:
    written(tmp_path / "one")
    written(tmp_path / "two")
    (tmp_path / "two" / "weights.safetensors").replace(tmp_path / "one" / "weights.safetensors")
    with pytest.raises(IntegrityError, match=r"is not the one that parent\.json describes"):
        load_parent(str(tmp_path / "one"))
    with pytest.raises(ParentError, match=r"is not a parent: weights\.safetensors is missing"):
        load_parent(str(tmp_path / "two"))


# -- repositories of the Hugging Face Hub, as folders


class Folder:
    """Fetches from `root`/namespace/name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, repository: str, revision: str | None, filename: str) -> Path:
        path = self.root / repository / filename
        if not path.is_file():
            raise NotFoundError(f"'{repository}' has no {filename}.")
        return path

    def put(self, config: Mapping[str, Any], module: nn.Module | None = None, **files: str) -> None:
        place = self.root / "a" / "net"
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_text(json.dumps(config))
        if module is not None:
            tensors = {key: each.contiguous() for key, each in module.state_dict().items()}
            save_file(tensors, place / "model.safetensors")
        for name, text in files.items():
            (place / name.replace("__", ".")).write_text(text)


def test_a_timm_repository(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is optional")
    folder = Folder(tmp_path)
    module = timm.create_model("resnet10t", num_classes=2)
    described = {"input_size": [3, 64, 64], "crop_pct": 0.5, "mean": [0.5] * 3, "std": [0.5] * 3}
    config = {
        "architecture": "resnet10t",
        "num_classes": 2,
        "pretrained_cfg": described,
        "label_names": ["cat", "dog"],
    }
    folder.put(config, module, README__md="---\nlicense: mit\n---\n")
    found = load_parent("hf:a/net@main", fetch=folder)
    assert (found.name, found.architecture, found.labels) == ("net", "timm:resnet10t", ("cat", "dog"))
    assert found.license == "mit"
    assert found.input is not None
    assert (found.input.height, found.input.resize, found.input.mean) == (64, 128, (0.5, 0.5, 0.5))
    assert found.network().graph.shapes[found.network().graph.output] == (2,)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("blue_first", [False, True])
def test_a_transformers_repository(blue_first: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is optional")
    folder = Folder(tmp_path)
    config = transformers.ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 6],
        depths=[1, 1],
        layer_type="basic",
        id2label={0: "cat", 1: "dog"},
        label2id={"cat": 0, "dog": 1},
    )
    module = transformers.AutoModelForImageClassification.from_config(config)
    said = {**config.to_dict(), "architectures": ["ResNetForImageClassification"]}
    preprocessing: dict[str, Any] = {"size": {"shortest_edge": 56}, "crop_pct": 0.875, "resample": 3}
    if blue_first:
        preprocessing = {"image_processor_type": "MobileViTImageProcessor", "size": 64, "crop_size": 56}
    folder.put(said, module, preprocessor_config__json=json.dumps(preprocessing))
    found = load_parent("hf:a/net", fetch=folder)
    assert (found.architecture, found.labels) == ("transformers:resnet", ("cat", "dog"))
    assert found.input is not None
    assert (found.input.height, found.input.resize, found.input.interpolation) == (56, 64, "bicubic")
    images = torch.rand(2, 3, 56, 56)
    with torch.no_grad():
        wanted = module.eval()(images.flip(1) if blue_first else images).logits
    assert torch.allclose(Runner(found.network())(images), wanted, atol=1e-5)


REPOSITORIES: dict[str, tuple[dict[str, Any] | None, str]] = {
    "no classifier": (
        None,
        "'a/net' has no config.json, so it is no image classifier of timm or transformers. Choose a "
        "repository of the task image-classification.",
    ),
    "pickles only": (
        {"architecture": "resnet10t"},
        "'a/net' has no model.safetensors; weights as pickles can carry code and are not read. Ask its owner "
        "to convert it (the hub's 'safetensors' bot does it), or convert a copy.",
    ),
}


@pytest.mark.parametrize("case", REPOSITORIES)
def test_no_repository(case: str, tmp_path: Path) -> None:
    config, message = REPOSITORIES[case]
    folder = Folder(tmp_path)
    if config is not None:
        folder.put(config)
    with pytest.raises(ParentError) as caught:
        load_parent("hf:a/net", fetch=folder)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"architectures": ["BertModel"]},
            "'a/net' holds BertModel, not an image classifier of timm or transformers. Choose a repository "
            "of the task image-classification.",
        ),
        (
            {"architectures": ["XForImageClassification"], "auto_map": {"AutoModel": "code.X"}},
            "'a/net' needs code that comes with it, which is never run. Choose a repository of an "
            "architecture that transformers itself knows.",
        ),
    ],
)
def test_other_repositories(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put(config, nn.Linear(1, 1))
    with pytest.raises(ParentError) as caught:
        load_parent("hf:a/net", fetch=folder)
    assert str(caught.value) == message


TIMM = {"architecture": "resnet10t", "num_classes": 2}
SEEN = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_classes": "x"}, "Invalid model configuration in 'a/net' (ValueError: invalid literal"),
        ({"pretrained_cfg": [1]}, "Invalid model configuration in 'a/net' (TypeError: "),
        ({"label_names": 5}, "Invalid model configuration in 'a/net' (TypeError: "),
        ({"model_args": {"block": "x"}}, "Invalid model configuration in 'a/net' (AttributeError: "),
        ({"model_args": {"checkpoint_path": "/x.pth"}}, "config.json of 'a/net' sets 'checkpoint_path', "),
        ({"pretrained_cfg": {**SEEN, "crop_pct": -1}}, "'resize' in The input of 'a/net' is -64; it should"),
        ({"pretrained_cfg": {**SEEN, "mean": 5}}, "Invalid model configuration in 'a/net' (Type"),
    ],
)
def test_a_config_that_makes_no_sense(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is optional")
    folder = Folder(tmp_path)
    folder.put({**TIMM, **config}, timm.create_model("resnet10t", num_classes=2))
    with pytest.raises((ParentError, ManifestError)) as caught:
        load_parent("hf:a/net", fetch=folder)
    assert str(caught.value).startswith(message)


def test_a_config_fetches_no_kernel_and_no_other_weights() -> None:
    theirs = {
        "model_type": "x",
        "attn_implementation": "kernels-community/evil",
        "backbone_config": {"use_pretrained_backbone": True, "_attn_implementation": "a/b", "depth": [1]},
    }
    assert _tame(theirs) == {"model_type": "x", "backbone_config": {"depth": [1]}}


def test_a_hub_is_needed() -> None:
    with pytest.raises(ParentError) as caught:
        load_parent("hf:a/net")
    assert str(caught.value) == "Cannot fetch 'hf:a/net'. Call modhub.decompose, or pass `fetch`."


def test_timm_weights_are_fetched_as_safetensors(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is optional")
    with pytest.raises(ParentError) as caught:
        load_parent("timm:resnet10t")
    assert str(caught.value) == (
        "timm:resnet10t comes without weights here. Pass some with --weights FILE.safetensors."
    )
    asked = []
    path = saved(tmp_path / "model.safetensors", timm.create_model("resnet10t"))

    def fetch(repository: str, revision: str | None, filename: str) -> Path:
        asked.append((repository, revision, filename))
        return path

    found = load_parent("timm:resnet10t", fetch=fetch)
    assert asked == [("timm/resnet10t.c3_in1k", None, "model.safetensors")]
    assert found.labels is not None
    assert len(found.labels) == 1000
    # Older versions of timm know no licences.
    assert found.license == timm.get_pretrained_cfg("resnet10t").license
    assert found.license in ("apache-2.0", None)


FLAT = {"architecture": "resnet10t", "num_classes": 2, "num_features": 512, **SEEN, "crop_pct": 0.8}


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ({"labels": ["cat", "dog"]}, ("cat", "dog")),
        ({"label_names": {"1": "dog", "0": "cat"}}, ("cat", "dog")),
        ({"label_names": {"dog": 1, "cat": 0}}, ("cat", "dog")),
        ({}, None),
    ],
)
def test_the_older_configuration_of_timm(
    names: dict[str, Any], labels: tuple[str, ...] | None, tmp_path: Path
) -> None:
    """Everything beside the architecture, and the names of classes in several forms."""
    timm = pytest.importorskip("timm", reason="timm is optional")
    folder = Folder(tmp_path)
    folder.put({**FLAT, **names}, timm.create_model("resnet10t", num_classes=2))
    parent = load_parent("hf:a/net", fetch=folder)
    assert parent.labels == labels
    assert parent.input is not None
    assert (parent.input.height, parent.input.resize, parent.input.interpolation) == (64, 80, "bicubic")


def test_names_that_are_not_those_of_the_rows(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is optional")
    folder = Folder(tmp_path)
    for names, message in (
        ({"7": "cat", "9": "dog"}, "The names of the classes are no rows of the head, counted from 0."),
        (["cat"], "There are 1 names for 2 classes."),
    ):
        folder.put({**FLAT, "label_names": names}, timm.create_model("resnet10t", num_classes=2))
        with pytest.raises(ParentError) as caught:
            load_parent("hf:a/net", fetch=folder)
        assert caught.value.message == message


@pytest.mark.parametrize(("repository", "known"), [("timm/net", True), ("a/net", False)])
def test_a_thousand_classes_of_ones_own_are_not_imagenets(
    repository: str, known: bool, tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm", reason="timm is optional")
    folder = Folder(tmp_path)
    folder.put({**FLAT, "num_classes": 1000}, timm.create_model("resnet10t", num_classes=1000))
    labels = load_parent(
        f"hf:{repository}", fetch=lambda _, revision, name: folder("a/net", revision, name)
    ).labels
    assert (labels is not None and labels[0] == "tench") if known else labels is None


def test_own_code_says_how_images_are_prepared(own: Path) -> None:
    spec = load_parent(f"{own}:stated").input
    assert spec is not None
    assert (spec.height, spec.width, spec.resize, spec.crop, spec.interpolation) == (
        64,
        48,
        72,
        True,
        "bicubic",
    )
    assert (spec.mean, spec.value_range) == ((0.0,) * 3, (0.0, 1.0))
    with pytest.raises(ParentError) as caught:
        load_parent(f"{own}:stated", arguments={"blur": "2"})
    assert str(caught.value) == (
        "The input_spec of stated has a key 'blur', which there is not. Its keys are channels, height, "
        "width, mean, std, value_range, resize, crop and interpolation."
    )


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "timm_wrapper", "model_args": {"checkpoint_path": "/etc/passwd"}},
        {"model_type": "timm_wrapper", "architecture_": "local-dir:/etc"},
        {"model_type": "resnet", "backbone_config": {"model_type": "timm_backbone", "backbone": "x"}},
        {"model_type": "resnet", "inside": [{"checkpoint_path": "/etc/passwd"}]},
    ],
)
def test_nothing_that_timm_builds_for_transformers_reads_a_local_file(config, tmp_path):
    files = {"config.json": {**config, "architectures": ["TimmWrapperForImageClassification"]}}
    (tmp_path / "config.json").write_text(json.dumps(files["config.json"]))
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")

    def fetch(repository, revision, name):
        if not (tmp_path / name).exists():
            raise NotFoundError("There is none.", missing="file")
        return tmp_path / name

    with pytest.raises(ParentError, match="which may read files of this machine"):
        repository_parent("lab/net", fetch)


def test_imagenets_classes_answer_to_synonyms_and_synsets() -> None:
    pytest.importorskip("timm")
    labels = imagenet_labels()
    aliases, ontology = imagenet_synonyms(labels)
    assert aliases["goldfish"] == ("n01443537", "goldfish, Carassius auratus", "Carassius auratus")
    assert ontology["goldfish"] == "n01443537"
    # What WordNet calls both of them is neither's name.
    assert labels[134] == "crane bird"
    assert "crane" not in aliases["crane bird"]
    index = LabelIndex(labels, aliases)
    for name in ("goldfish", "n01443537", "Carassius auratus", "goldfish, Carassius auratus"):
        assert index.find(name) == (1,)
    # Other names for the same classes are ImageNet's, too; the same number of others are not.
    assert "goldfish" in imagenet_synonyms([ontology[label] for label in labels])[0]["n01443537"]
    assert imagenet_synonyms([f"class {row}" for row in range(1000)]) == ({}, {})
    assert imagenet_synonyms(labels[:10]) == ({}, {})


def test_modules_carry_synonyms_and_images_may_be_called_by_them(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    path = saved(tmp_path / "w.safetensors", models.squeezenet1_1())
    options = DecomposeOptions(weights=path, labels=["imagenet-1k"], input_size=(32, 32))
    parent = open_parent("torchvision:squeezenet1_1", None, options)
    pixels = np.zeros((4, 32, 32, 3), np.uint8)
    images = ImageSet("pets", "train", ("n01440764", "n01443537"), np.arange(4) % 2, pixels.__getitem__)
    assert aligned(parent, images, ("goldfish",)).counts().tolist()[:2] == [2, 2]
    assert classes_named(parent, ["n01443537", "tench"]) == ("goldfish", "tench")
    modules = assemble(parent, without_images(parent, DecomposeOptions(only=["goldfish"])))
    (module,) = modules.modules
    assert (module.manifest.aliases[0], module.manifest.ontology_id) == ("n01443537", "n01443537")
    assert modules.module("Carassius auratus") is module
    assert Parent.of_modules(modules).aliases["goldfish"] == module.manifest.aliases
