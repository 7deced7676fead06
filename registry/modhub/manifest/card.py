"""The card (README.md): front matter for machines, then a page for people."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from modhub.errors import RefError
from modhub.formatting import percent, size
from modhub.labels import slug_of, tag_words_of
from modhub.manifest import ModuleEntry, ModuleManifest, RepositoryManifest
from modhub.refs import Ref, RepositoryId

CARD_NAME = "README.md"

# What huggingface.co takes as `license`; anything else is written as `other` with its name beside it.
_KNOWN_LICENSES = frozenset(
    re.findall(
        r"\S+",
        """
    0bsd afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0
    cc0-1.0 ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 mit
    mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail osl-3.0 pddl postgresql unlicense wtfpl zlib
    """,
    )
)
_COLUMNS = {
    "recall": "recall",
    "precision": "precision",
    "balanced_accuracy": "balanced accuracy",
    "parent_balanced_accuracy": "of the whole parent",
}
"""What helps to choose, by name of the figure; `modules/*/module.json` have the others."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")


def class_tag(name: str) -> str:
    """The tag a class is found by: `Great white shark` → `class:great-white-shark`. Raises `RefError`."""
    return f"class:{slug_of(name)}"


def class_tags(name: str) -> tuple[str, ...]:
    """The tags to look for a class by: `class_tag`, and that of 0.1 where it was another."""
    return tuple(f"class:{words}" for words in tag_words_of(name))


def tags_of(manifest: RepositoryManifest) -> tuple[str, ...]:
    """`modhub`, the architecture, data set and method, and one tag for each name of each class."""
    tags = ["modhub", f"architecture:{_word(manifest.parent.architecture)}"]
    if manifest.parent.dataset:
        tags.append(f"dataset:{_word(manifest.parent.dataset)}")
    tags.append(f"method:{_word(manifest.method.name)}")
    for entry in manifest.modules:
        tags += [
            tag for name in (entry.label, entry.slug, *entry.aliases) if (tag := _class_tag_or_none(name))
        ]
    return tuple(dict.fromkeys(tags))


def card(
    manifest: RepositoryManifest, modules: Sequence[ModuleManifest] = (), *, repository: str | None = None
) -> str:
    """The whole README.md.

    `modules` add what was measured with how many images; `repository` is the id shown in the commands,
    a placeholder when None. Text from manifests is escaped: it can neither leave its table cell nor add
    markup.
    """
    head = yaml.safe_dump(_front(manifest), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n\n{_page(manifest, modules, repository or 'NAMESPACE/NAME')}"


def _front(manifest: RepositoryManifest) -> dict[str, Any]:
    front: dict[str, Any] = {
        "library_name": "modhub",
        "pipeline_tag": "image-classification",
        "tags": list(tags_of(manifest)),
    }
    if manifest.license:
        licence = manifest.license.lower()
        if licence in _KNOWN_LICENSES:
            front["license"] = licence
        else:
            front |= {"license": "other", "license_name": _word(manifest.license)}
    source, _, name = manifest.parent.name.partition(":")
    if source == "hf" and _HUB_ID.match(name):
        front["base_model"] = name
    elif source == "timm" and name:
        front["base_model"] = f"timm/{name}"
    if manifest.parent.dataset:
        front["datasets"] = [_word(manifest.parent.dataset)]
    if metrics := sorted({name for entry in manifest.modules for name in entry.metrics}):
        front["metrics"] = metrics
    if manifest.energy is not None and manifest.energy.emissions is not None:
        emissions = manifest.energy.emissions
        front["co2_eq_emissions"] = {
            "emissions": emissions.grams,
            "source": f"modhub; {manifest.energy.power_model}; {emissions.grid.value:g} gCO2e/kWh",
            "training_type": "decomposition of a trained network",
            "geographical_location": emissions.grid.name,
            "hardware_used": manifest.energy.processor,
        }
    return front


def _page(manifest: RepositoryManifest, modules: Sequence[ModuleManifest], repository: str) -> str:
    parent = manifest.parent
    first = manifest.modules[0]
    facts = [
        ("Parent", f"{parent.name} ({parent.architecture}, {len(parent.labels)} classes)"),
        ("Data set", parent.dataset or "not stated"),
        ("Licence", manifest.license or "not stated"),
        ("Method", manifest.method.name + (f", {manifest.method.paper}" if manifest.method.paper else "")),
        ("Input", _input(manifest)),
    ]
    if manifest.trunk is not None:
        facts.append(
            (
                "Trunk",
                f"{manifest.trunk.parameters:,} parameters, {manifest.trunk.flops:,} multiply-adds, "
                f"{size(manifest.trunk.weights.size)}",
            )
        )
    columns = {name: header for name, header in _COLUMNS.items() if _known(manifest, name)}
    header = ["class", *columns.values(), "channels kept", "size"]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for entry in manifest.modules:
        rows.append(
            [
                _cell(_names(entry)),
                *(percent(entry.metrics.get(name)) for name in columns),
                percent(entry.kept_channels_fraction),
                size(entry.bytes),
            ]
        )
    lines = [
        f"# Class modules of {_cell(parent.name)}",
        "",
        f"{len(manifest.modules)} of the {len(parent.labels)} classes of one image classifier, each a module "
        "that can be pulled by name and composed with modules of this or other parents, without training.",
        "",
        *(f"- **{name}**: {_cell(text)}" for name, text in facts),
        "",
        "## Use",
        "",
        "```bash",
        "pip install modhub",
        f"modhub pull {shlex.quote(ref_of(repository, first))}",
        "modhub init my-classifier && cd my-classifier",
        *(f"modhub add {shlex.quote(ref_of(repository, entry))}" for entry in manifest.modules[:3]),
        "modhub lock && modhub compose -o build",
        "modhub predict build picture.png",
        "```",
        "",
        "## Modules",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    measured = {module.slug: module.measurement for module in modules}
    measurements = [
        value for value in (measured.get(entry.slug) for entry in manifest.modules) if value is not None
    ]
    if measurements:
        images = sum(value.positives for value in measurements)
        where = sorted({f"{value.dataset} ({value.split})" for value in measurements})
        lines += ["", f"Measured on {images:,} images of these classes: {_cell(', '.join(where))}."]
        if not all(value.sample.unseen for value in measurements):
            lines.append("The parent may have been trained on them: then the figures flatter.")
    return "\n".join(lines) + "\n"


def _input(manifest: RepositoryManifest) -> str:
    spec = manifest.input
    colour = {1: "grey", 3: "RGB"}.get(spec.channels, f"{spec.channels} channels")
    return f"{spec.height} × {spec.width} {colour}; raw images of any size are fitted"


def _known(manifest: RepositoryManifest, name: str) -> bool:
    return any(name in entry.metrics for entry in manifest.modules)


def _names(entry: ModuleEntry) -> str:
    also = f", also {', '.join(entry.aliases)}" if entry.aliases else ""
    return f"{entry.label}{also}{'' if entry.form == 'delta' else f' ({entry.form})'}"


def _cell(text: str) -> str:
    """Text that stays text inside a Markdown table."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&~])", r"\\\1", " ".join(text.split()))


def ref_of(repository: str, entry: ModuleEntry) -> str:
    """What to type for a module: its label, which becomes the class's name in a project. It may need quotes
    in a shell."""
    return str(Ref(RepositoryId.parse(repository), entry.label))


def _class_tag_or_none(name: str) -> str | None:
    try:
        return class_tag(name)
    except RefError:
        return None


def _word(text: str) -> str:
    """One word of a tag or id: lower case, no blanks or commas."""
    return re.sub(r"[\s,]+", "-", text.strip().lower())
