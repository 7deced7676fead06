"""The card: front matter that hubs read, and a page that people read."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import yaml

from modhub.errors import RefError
from modhub.formatting import size
from modhub.labels import slug_of
from modhub.manifest import RepositoryManifest
from modhub.manifest.card import card, class_tag, tags_of
from tests.support.pico import pico_set


@pytest.fixture(scope="module")
def manifest() -> RepositoryManifest:
    return pico_set().manifest


def front(text: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_the_front_matter(manifest: RepositoryManifest) -> None:
    assert front(card(manifest)) == {
        "library_name": "modhub",
        "pipeline_tag": "image-classification",
        "tags": [
            "modhub",
            "architecture:pico",
            "dataset:pets",
            "method:by-hand",
            "class:cat",
            "class:cat-pico",
            "class:dog",
            "class:dog-pico",
            "class:aquarium-fish",
            "class:aquarium-fish-pico",
        ],
        "license": "mit",
        "base_model": "somebody/pico",
        "datasets": ["pets"],
        "metrics": ["precision", "recall"],
    }


@pytest.mark.parametrize(
    ("label", "typed"),
    [
        ("cat", "modhub add lab/pets/cat\n"),
        ("größe 2", "modhub add 'lab/pets/größe 2'\n"),
        ("Rock'n'Roll", """modhub add 'lab/pets/Rock'"'"'n'"'"'Roll'\n"""),
        ("either/or", "modhub add lab/pets/either%2For\n"),
        (" blank", "modhub add lab/pets/%20blank\n"),
    ],
)
def test_what_to_type_keeps_the_label_where_a_ref_can(
    manifest: RepositoryManifest, label: str, typed: str
) -> None:
    entry = dataclasses.replace(manifest.modules[0], label=label, slug=slug_of(label))
    assert typed in card(dataclasses.replace(manifest, modules=(entry,)), repository="lab/pets")


@pytest.mark.parametrize(
    ("license_", "name", "expected"),
    [
        ("bsd-2-clause", "timm:resnet18", {"license": "bsd-2-clause", "base_model": "timm/resnet18"}),
        ("Our Own 1.0", "modhub:resnet20", {"license": "other", "license_name": "our-own-1.0"}),
        (None, "hf:not an id", {}),
    ],
)
def test_only_what_hubs_accept(
    manifest: RepositoryManifest, license_: str | None, name: str, expected: dict[str, str]
) -> None:
    parent = dataclasses.replace(manifest.parent, name=name, dataset=None)
    found = front(card(dataclasses.replace(manifest, license=license_, parent=parent)))
    optional = ("license", "license_name", "base_model", "datasets")
    assert {key: found[key] for key in optional if key in found} == expected


def test_the_page(manifest: RepositoryManifest) -> None:
    modules = [module.manifest for module in pico_set().modules]
    page = card(manifest, modules, repository="lab/pico").split("---\n", 2)[2]
    assert page.startswith(
        "\n# Class modules of hf:somebody/pico\n\n"
        "3 of the 3 classes of one image classifier, each a module that can be pulled by name and "
        "composed with modules of this or other parents, without training.\n"
    )
    assert "\nmodhub pull lab/pico/cat\n" in page
    assert "\nmodhub add 'lab/pico/aquarium fish'\n" in page
    assert (
        "\n| class | recall | precision | channels kept | size |\n| --- | ---: | ---: | ---: | ---: |\n"
        in page
    )
    entry = manifest.modules[2]
    bytes_ = size(entry.manifest.size + entry.tensors.size)
    assert f"\n| aquarium fish, also aquarium fish (pico) | 90.0 % | 80.0 % | 92.9 % | {bytes_} |\n" in page
    assert page.endswith(
        "\nMeasured on 30 images of these classes: pets (train).\n"
        "The parent may have been trained on them: then the figures flatter.\n"
    )


def test_the_table_has_what_helps_to_choose(manifest: RepositoryManifest) -> None:
    figures = {
        "recall": 0.99,
        "precision": 0.5,
        "parent_recall": 1.0,
        "balanced_accuracy": 0.875,
        "parent_balanced_accuracy": 0.9,
        "false_accept": 0.3,
    }
    measured = dataclasses.replace(manifest.modules[0], metrics=figures, form="standalone", aliases=())
    bare = dataclasses.replace(manifest.modules[1], metrics={}, aliases=())
    page = card(dataclasses.replace(manifest, modules=(measured, bare)))
    assert (
        "\n| class | recall | precision | balanced accuracy | of the whole parent | channels kept | size |\n"
        in page
    )
    assert "\n| cat (standalone) | 99.0 % | 50.0 % | 87.5 % | 90.0 % | 92.9 % | " in page
    assert "\n| dog | – | – | – | – | 92.9 % | " in page


def test_text_from_manifests_stays_text(manifest: RepositoryManifest) -> None:
    evil = dataclasses.replace(
        manifest.modules[0], label="a|b</td>\n<script>[x](javascript:1)", aliases=("---\ntags: [evil]",)
    )
    text = card(dataclasses.replace(manifest, modules=(evil,)))
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "| a\\|b\\</td\\> \\<script\\>\\[x\\](javascript:1), also --- tags: \\[evil\\] |" in text
    assert "class:tags-evil" in front(text)["tags"]  # type: ignore[operator]
    assert "evil" not in front(text)


@pytest.mark.parametrize(
    ("name", "tag"),
    [("cat", "class:cat"), ("Great white shark, White shark", "class:great-white-shark-white-shark")],
)
def test_a_class_has_one_tag_however_it_is_written(name: str, tag: str) -> None:
    assert class_tag(name) == class_tag(name.upper()) == class_tag(name.replace(" ", "_")) == tag


def test_signs_have_a_tag_and_blanks_have_none(manifest: RepositoryManifest) -> None:
    with pytest.raises(RefError):
        class_tag("  ")
    entry = dataclasses.replace(manifest.modules[0], aliases=("+", " "))
    assert [
        t for t in tags_of(dataclasses.replace(manifest, modules=(entry,))) if t.startswith("class:")
    ] == ["class:cat", "class:plus-sign"]


def test_cards_need_no_torch() -> None:
    code = "import sys, modhub.manifest.card; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
