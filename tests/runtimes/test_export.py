"""Exported files are run in their own runtimes beside the original."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from modhub.api.export import export
from modhub.composition import compose, parts_of
from modhub.data.preprocessing import Preprocess
from modhub.errors import ExportError
from modhub.importing import import_module
from modhub.manifest import InputSpec
from modhub.nets import Runner, split_head
from modhub.parents import load_parent
from modhub.runtimes.export import FORMATS, as_raw_batch, export_classifier
from modhub.runtimes.exported import METADATA_KEY, SUFFIXES, open_exported
from modhub.runtimes.geometry import Geometry
from modhub.runtimes.onnx import OnnxClassifier
from tests.support.digit_parents import digit_modules, digits, pixels_of

SPEC = InputSpec(
    channels=3, height=16, width=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2), resize=20, crop=True
)


class Pico(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.preprocess = Preprocess(SPEC)
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.conv(self.preprocess(images)).relu().mean((2, 3))
        return self.head(features)  # type: ignore[no-any-return]


def photographs(count: int, height: int, width: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("form", FORMATS)
def test_scores_are_the_same_in_the_file_s_own_runtime(form: str, tmp_path: Path) -> None:
    images = as_raw_batch(photographs(5, 30, 24), Geometry((20, 24)))
    path = tmp_path / f"model{SUFFIXES[form]}"
    report = export_classifier(
        Pico(), ["cat", "dog"], path, format=form, images=images, metadata={"lock": "x = 1"}
    )
    assert report.largest_difference <= 1e-4
    assert report.images == 5
    assert report.bytes == path.stat().st_size
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("form", FORMATS)
def test_no_directory_of_this_machine_is_in_the_file(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{SUFFIXES[form]}"
    export_classifier(
        Pico(),
        ["cat", "dog"],
        path,
        format=form,
        images=as_raw_batch(photographs(2, 30, 24), Geometry((20, 24))),
    )
    contents = [path.read_bytes()]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            contents = [archive.read(name) for name in archive.namelist()]
    for place in (Path(torch.__file__).parents[1], Path(__file__).parents[2]):
        assert not [content for content in contents if str(place).encode() in content]


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_knows_its_labels_and_takes_any_batch(form: str, tmp_path: Path) -> None:
    classifier, path = Pico().eval(), tmp_path / f"model{SUFFIXES[form]}"
    images = as_raw_batch(photographs(3, 20, 20), Geometry((20, 20)))
    export_classifier(
        classifier, ["cat", "dog"], path, format=form, images=images, metadata={"lock": "x = 1"}
    )
    written = open_exported(path)
    assert written.labels == ("cat", "dog")
    assert written.image_size == (20, 20)
    assert written.metadata["lock"] == "x = 1"
    if form == "onnx":
        graph = onnx.load(path).graph
        (shape,) = [each.type.tensor_type.shape.dim for each in graph.input]
        assert [side.dim_param or side.dim_value for side in shape] == ["batch", 3, 20, 20]
        assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for count in (1, 3, 7):
        pictures = photographs(count, 20, 20)
        expected = classifier(as_raw_batch(pictures, Geometry((20, 20)))).detach().numpy()
        np.testing.assert_allclose(written.predict(pictures), expected, atol=1e-4)
    assert written.predict([]).shape == (0, 2)


@pytest.mark.parametrize("form", FORMATS)
def test_a_classifier_that_may_refuse_is_exported_with_what_it_goes_by(form: str, tmp_path: Path) -> None:
    classifier = compose(parts_of(digit_modules(), ["3", "5"]), reject=True)
    images, _ = pixels_of(digits("0123456789", "test"))
    path = tmp_path / f"model{SUFFIXES[form]}"
    report = export_classifier(classifier, classifier.labels, path, format=form, images=images)
    assert report.largest_difference <= 1e-3
    written = open_exported(path)
    assert written.reject
    assert written.metadata["false_accept"] == pytest.approx(classifier.false_accept)
    found = written.outputs(images.numpy())["acceptance"]
    with torch.inference_mode():
        expected = classifier.assess(images)[1].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert 0 < (found < 0).mean() < 1


@pytest.mark.parametrize("calibrated", [False, True])
def test_an_exported_classifier_is_a_parent(calibrated: bool, tmp_path: Path) -> None:
    labels = ["3", "5", "1"]
    few = digits("135").sample(5, 0) if calibrated else None
    classifier = compose(parts_of(digit_modules(), labels), calibrate=few)
    images, _ = pixels_of(digits("135", "test"))
    path = tmp_path / "model.onnx"
    export_classifier(classifier, labels, path, format="onnx", images=images)
    parent = load_parent(f"onnx:{path}")
    trunk, head = split_head(parent.network())
    assert parent.input is not None
    with torch.inference_mode():
        features = Runner(trunk)(Preprocess(parent.input)(images))
        logits = features @ head.weight.T + head.bias
        scores = classifier(images)
    centred = (values - values.mean(1, keepdim=True) for values in (logits, scores))
    torch.testing.assert_close(*centred, rtol=1e-4, atol=1e-4)


def test_a_classifier_in_memory_is_exported_as_its_build_is(tmp_path: Path) -> None:
    classifier = compose(parts_of(digit_modules(), ["3", "5"])).train()
    report = export(classifier, tmp_path / "digits.pt2", format="pt2")
    assert report.path == tmp_path / "digits.pt2"
    assert classifier.training, "what was given is left as it is"
    export(classifier.save(tmp_path / "build"), format="pt2")
    pixels = pixels_of(digits("35", "test"))[0].expand(-1, 3, -1, -1)
    one, other = (torch.export.load(tmp_path / f"{name}.pt2").module() for name in ("digits", "build"))
    assert torch.equal(one(pixels), other(pixels))


def test_a_classifier_in_memory_needs_a_target() -> None:
    with pytest.raises(ExportError) as caught:
        export(compose(parts_of(digit_modules(), ["3", "5"])))
    assert str(caught.value) == (
        "A classifier in memory needs the name of the file to write. "
        'For example: modhub.export(classifier, "pets.onnx").'
    )


def test_predicting_with_onnx_imports_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    images = as_raw_batch(photographs(2, 20, 20), Geometry((20, 20)))
    export_classifier(Pico(), ["cat", "dog"], path, format="onnx", images=images)
    program = (
        "import sys, numpy, pathlib\n"
        "from modhub.runtimes.onnx import OnnxClassifier\n"
        "image = numpy.zeros((9, 7, 1), numpy.uint8)\n"
        f"scores = OnnxClassifier(pathlib.Path({str(path)!r})).predict([image])\n"
        "print(scores.shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 2) False"


class Drifting(Pico):
    """Answers differently inside the exporter than outside."""

    def forward(self, images: Tensor) -> Tensor:
        scores = super().forward(images)
        return scores + 1 if torch.compiler.is_exporting() else scores


class Branching(Pico):
    def forward(self, images: Tensor) -> Tensor:
        scores = super().forward(images)
        return scores if scores.sum().item() > 0 else -scores


@pytest.mark.parametrize(
    ("classifier", "form", "count", "message"),
    [
        (
            Drifting(),
            "pt2",
            3,
            "The pt2 file's scores differ from PyTorch's by 1 (allowed: 0.001), so it was not kept.",
        ),
        (Pico(), "tflite", 3, "There is no export format 'tflite'."),
        (Pico(), "onnx", 1, "An export is checked on at least two images."),
        (Branching(), "pt2", 3, "The classifier cannot be written as pt2: "),
    ],
)
def test_what_cannot_be_exported_leaves_nothing(
    classifier: nn.Module, form: str, count: int, message: str, tmp_path: Path
) -> None:
    images = as_raw_batch(photographs(count, 20, 20), Geometry((20, 20)))
    with pytest.raises(ExportError) as caught:
        export_classifier(classifier, ["cat", "dog"], tmp_path / "model", format=form, images=images)
    assert caught.value.message.startswith(message)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not onnx", b"\x08\x07"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_is_no_export_is_refused(form: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"model{SUFFIXES[form]}"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=r"model\.\w+' (is not a valid \w+ file|has no labels)"):
        open_exported(path)
    with pytest.raises(ExportError) as missing:
        open_exported(tmp_path / f"gone{SUFFIXES[form]}")
    assert missing.value.hint == f"Write one with: modhub export DIR --format {form}"


def test_an_onnx_file_of_another_maker_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "model.onnx", tmp_path / "other.onnx"
    images = as_raw_batch(photographs(2, 20, 20), Geometry((20, 20)))
    export_classifier(Pico(), ["cat", "dog"], path, format="onnx", images=images)
    import onnx

    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, other)
    with pytest.raises(ExportError) as caught:
        OnnxClassifier(other)
    assert str(caught.value) == (
        f"'{other}' has no labels in its metadata; modhub did not write it. "
        "Write one with: modhub export DIR --format onnx"
    )
    model = onnx.load(path)
    assert json.loads({entry.key: entry.value for entry in model.metadata_props}[METADATA_KEY])["labels"] == [
        "cat",
        "dog",
    ]


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((10, 30, 3), 3, (3, 8, 12)),
        ((40, 9, 1), 3, (3, 8, 12)),
        ((8, 12, 3), 1, (1, 8, 12)),
        ((1, 1, 1), 1, (1, 8, 12)),
    ],
)
def test_any_image_is_fitted(shape: tuple[int, ...], channels: int, expected: tuple[int, ...]) -> None:
    image = np.full(shape, 77, np.uint8)
    fitted = Geometry((8, 12)).fit(image, channels)
    assert fitted.shape == expected
    assert fitted.dtype == np.uint8
    assert np.all(fitted == 77)


def test_the_natural_size_serves_every_trunk() -> None:
    small = InputSpec(channels=1, height=8, width=10, mean=(0.5,), std=(0.5,))
    assert Geometry.of([small]).size == (8, 10)
    assert Geometry.of([small, SPEC]).size == (20, 20)


def test_windows_that_do_not_divide_a_picture_are_exported(tmp_path: Path) -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            network = nn.Sequential(nn.AdaptiveMaxPool2d((3, 5)), nn.Flatten(), nn.Linear(45, 2))
            self.runner = Runner(import_module(network, (3, 8, 8)))

        def forward(self, images: Tensor) -> Tensor:
            scores: Tensor = self.runner(images.float() / 255)
            return scores

    images = as_raw_batch(photographs(3, 8, 8), Geometry((8, 8)))
    report = export_classifier(Windows(), ["a", "b"], tmp_path / "a.onnx", format="onnx", images=images)
    assert report.largest_difference < 1e-5
