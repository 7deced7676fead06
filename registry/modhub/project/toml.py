"""`modhub.toml`: what a classifier is to be made of, written by people.

    [composition]
    name = "pets"

    [modules]                                   # the order is the order of the classifier's labels
    cat = "vision-lab/resnet20-cifar10/cat>=1,<2"
    puma = "zoo/big-cats/mountain lion"         # the class may be called otherwise here
    dog = "*"                                   # whoever serves it best

    [constraints]
    licenses = ["mit", "bsd-2-clause"]
    min-recall = 0.8
    max-trunks = 2

    [hubs]                                      # where a namespace lives; no other hub is asked for it
    vision-lab = "https://hub.example.org"

Edits keep comments and order. The file holds no credentials.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tomlkit

from modhub.errors import CompositionError, ManifestError, RefError, hinting
from modhub.labels import LabelIndex, nearest_labels, one_match, spelling_of
from modhub.manifest.fields import Fields
from modhub.refs import Ref, RepositoryId, check_label
from modhub.text import check_no_conflict

PROJECT_NAME = "modhub.toml"

_TEMPLATE = """\
# What this classifier is made of. 'modhub lock' picks the releases, 'modhub compose' builds it.
[composition]
name = {name}

[constraints]
# licenses = ["mit"]
# min-recall = 0.8
# max-trunks = 1

[modules]
# label = "namespace/name/label>=1,<2", or "*" for the provider that serves the class best
"""


@dataclass(frozen=True, slots=True)
class Want:
    """One class of the composition: `label` is its name there, `ref` says which modules will do.

    `ref.label` is set always; `ref.repository` is None when any provider will do.
    """

    label: str
    ref: Ref

    @classmethod
    def parse(cls, label: str, text: str) -> Want:
        """Read one line of `[modules]`: `text` is a ref, a repository, `*`, a specifier or `*` with one.

        Raises `RefError`.
        """
        plain = Ref(None, check_label(label))
        text = text.strip()
        if text == "*":
            return cls(label, plain)
        if (specifier := text.removeprefix("*").lstrip()) and specifier[0] in "<>=!~":
            return cls(label, Ref.parse(f"{plain}{specifier}"))
        ref = Ref.parse(text)
        return cls(label, ref if ref.label else Ref(ref.repository, label, ref.specifier, ref.revision))

    @classmethod
    def of(cls, ref: Ref) -> Want:
        """The want of a ref that names its class; the composition calls it as the ref does."""
        if ref.label is None:
            raise RefError(f"'{ref}' names no class.", hint=f"Write {ref.repository}/<label>.")
        return cls(ref.label, ref)

    @property
    def text(self) -> str:
        """What stands to the right of the label in `[modules]`; `parse` is its inverse."""
        if self.ref.repository is None and self.ref.label == self.label:
            return str(self.ref.specifier) or "*"
        return str(self.ref)

    def __str__(self) -> str:
        return f"{self.label} = {self.text}"


@dataclass(frozen=True, slots=True)
class Constraints:
    """What every module must meet.

    `licenses` are allowed SPDX ids in lower case, None allows any; `min_recall` is in [0, 1] and compared
    with the recall recorded in the repository's manifest; `max_trunks` bounds the passes per image.
    """

    licenses: tuple[str, ...] | None = None
    min_recall: float | None = None
    max_trunks: int | None = None

    @classmethod
    def from_dict(cls, fields: Fields) -> Constraints:
        _known(fields, ("licenses", "min-recall", "max-trunks"))
        recall = fields.number("min-recall", minimum=0, maximum=1) if "min-recall" in fields.value else None
        licenses = fields.strings("licenses") if "licenses" in fields.value else None
        trunks = fields.integer("max-trunks", minimum=1) if "max-trunks" in fields.value else None
        return cls(None if licenses is None else tuple(sorted(map(str.casefold, licenses))), recall, trunks)

    def to_dict(self) -> dict[str, Any]:
        document = {
            "licenses": None if self.licenses is None else list(self.licenses),
            "min-recall": self.min_recall,
            "max-trunks": self.max_trunks,
        }
        return {key: value for key, value in document.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Project:
    """A composition as it is wanted. Raises `CompositionError` when two modules share a label."""

    name: str
    wants: tuple[Want, ...]
    constraints: Constraints = field(default_factory=Constraints)
    hubs: Mapping[str, str] = field(default_factory=dict)
    """The hub of a namespace, which is in lower case."""

    def __post_init__(self) -> None:
        earlier: dict[str, list[Want]] = {}
        for want in self.wants:
            alike = earlier.setdefault(spelling_of(want.label).casefold(), [])
            if other := next((other for other in alike if not _distinct(want, other)), None):
                raise CompositionError(
                    f"Two modules of this composition are called '{want.label}': {other.ref} and {want.ref}.",
                    hint="Give one of them another label (label=REF) or leave it out.",
                )
            alike.append(want)

    @classmethod
    def of(cls, modules: Mapping[str, str] | Iterable[str] | str, *, name: str = "composition") -> Project:
        """A project from refs by label, or from refs that name their class, or one. Raises `RefError`."""
        if isinstance(modules, str):
            modules = [modules]
        if isinstance(modules, Mapping):
            return cls(name, tuple(Want.parse(label, text) for label, text in modules.items()))
        return cls(name, tuple(Want.of(Ref.parse(text)) for text in modules))

    @classmethod
    @hinting("Mend it there.")
    def from_toml(cls, text: str, place: str = PROJECT_NAME) -> Project:
        """Read and check the file. Raises `ManifestError` naming the place; unknown keys are mistakes."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            check_no_conflict(text, place)
            raise ManifestError(
                f"{place} is not valid TOML ({error}).",
                hint='Mend it there; a module is a line such as: cat = "namespace/name/cat", one per label',
            ) from None
        fields = Fields(document, place)
        _known(fields, ("composition", "modules", "constraints", "hubs"))
        composition = fields.child("composition")
        _known(composition, ("name",))
        return cls(
            composition.string("name", limit=200, lines=True),
            fields.optional("modules", _wants) or (),
            fields.optional("constraints", Constraints.from_dict) or Constraints(),
            hubs_of(fields),
        )


def hubs_of(fields: Fields) -> dict[str, str]:
    """`hubs` of a project or a lock: each namespace in lower case, and its hub's address."""
    return fields.optional("hubs", _hubs) or {}


def _hubs(table: Fields) -> dict[str, str]:
    hubs: dict[str, str] = {}
    for namespace in table.value:
        address = table.string(namespace, limit=1000)
        try:
            RepositoryId(namespace, "x")
        except RefError:
            raise ManifestError(f"'{namespace}' in {table.place} is not a namespace.") from None
        if address != "hf" and not address.startswith(("http://", "https://", "/")):
            raise ManifestError(
                f"'{namespace}' in {table.place} should be a hub's address, not '{address}': "
                "https://host, hf or the absolute path of a directory."
            )
        if namespace.lower() in hubs:
            raise ManifestError(f"'{namespace}' stands in {table.place} twice.")
        hubs[namespace.lower()] = address
    return hubs


def _distinct(first: Want, second: Want) -> bool:
    """Whether two labels that differ in case alone are two classes: those that their repositories call so."""
    return spelling_of(first.label) != spelling_of(second.label) and all(
        want.ref.label == want.label for want in (first, second)
    )


def new_project(name: str) -> str:
    """The text of a fresh `modhub.toml` without modules."""
    return _TEMPLATE.format(name=tomlkit.string(name).as_string())


def add_want(text: str, *wants: Want) -> str:
    """`text` with one more module, or several, everything else as it stood. Raises when a label is taken."""
    project = Project.from_toml(text)
    Project(project.name, (*project.wants, *wants))
    document = tomlkit.parse(text)
    modules = document["modules"]
    if not isinstance(modules, tomlkit.items.Table | tomlkit.items.InlineTable):
        raise ManifestError("'modules' in modhub.toml is not a table.", hint="Write it as [modules].")
    for want in wants:
        modules[want.label] = want.text
    return tomlkit.dumps(document)


def remove_want(text: str, label: str) -> str:
    """`text` without the module that `label` means.

    Raises `CompositionError` naming those there are, and `AmbiguousClassError`.
    """
    labels = [want.label for want in Project.from_toml(text).wants]
    match = one_match(label, labels, LabelIndex(labels).find(label), PROJECT_NAME)
    if match is None:
        near = nearest_labels(label, labels) or labels
        there = f"It has: {', '.join(near)}." if labels else "It has none."
        raise CompositionError(f"There is no module '{label}' in {PROJECT_NAME}.", hint=there)
    document = tomlkit.parse(text)
    document["modules"].remove(labels[match])
    return tomlkit.dumps(document)


def _wants(modules: Fields) -> tuple[Want, ...]:
    return tuple(_want(modules, label) for label in modules.value)


def _want(modules: Fields, label: str) -> Want:
    value = modules.value[label]
    if isinstance(value, Mapping):
        table = modules.child(label)
        _known(table, ("ref",))
        value = table.string("ref")
    if not isinstance(value, str):
        raise ManifestError(
            f"'{label}' in {modules.place} should be a ref, not {value!r}.",
            hint='Write it in quotes, for instance "namespace/name/label>=1", or "*".',
        )
    try:
        return Want.parse(label, value)
    except RefError as error:
        raise ManifestError(f"'{label}' in {modules.place}: {error.message}", hint=error.hint) from None


def _known(fields: Fields, keys: tuple[str, ...]) -> None:
    """People mistype keys; a constraint that is silently ignored would be worse than an error."""
    for key in fields.value:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1)
            raise ManifestError(
                f"There is an unknown key '{key}' in {fields.place}.",
                hint=f"Did you mean '{near[0]}'?" if near else f"Known are: {', '.join(keys)}.",
            )
