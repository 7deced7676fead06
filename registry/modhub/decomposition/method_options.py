"""What a method says of itself without doing anything: its paper, its needs and its options.

A method's class may have, beside `name` and `paper`, a `citation` (authors, title, venue), `needs` (of
labels, gradients, training) and a `cost` in words. Its options are the arguments of its constructor; where it
is a dataclass whose fields are made with `option`, they are described and checked.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modhub.errors import DataError
from modhub.results import Result

_ARXIV = re.compile(r"arXiv:(\S+)", re.IGNORECASE)
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MethodOption(Result):
    """One option of a method. `type` is boolean, integer, number or text; `choices` are all values that a
    text may have, `minimum` and `maximum` what a number may be; `default` None says that it may be left
    out."""

    name: str
    type: str
    default: bool | int | float | str | None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MethodDescription(Result):
    """What is known of a method. `package` is what brought it, with its version."""

    name: str
    summary: str
    paper: str | None
    url: str | None
    citation: str | None
    needs: tuple[str, ...]
    cost: str | None
    package: str
    options: tuple[MethodOption, ...]


def option(
    default: Any,
    description: str,
    *,
    kind: type | None = None,
    choices: Sequence[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A dataclass field that is an option of a method. Values have the type of `default`, or are of `kind`
    where that is None."""
    about = {
        "kind": kind or type(default),
        "description": description,
        "choices": tuple(choices),
        "minimum": minimum,
        "maximum": maximum,
    }
    return dataclasses.field(default=default, metadata={"option": about})


class CheckedOptions:
    """Base of methods that are dataclasses of `option` fields: a value that is none of an option's is refused
    with a `DataError` that names it."""

    def __post_init__(self) -> None:
        assert dataclasses.is_dataclass(self)
        for field in dataclasses.fields(self):
            if "option" not in field.metadata:
                continue
            about, value = field.metadata["option"], getattr(self, field.name)
            if not _fits(value, field.default, about):
                raise DataError(
                    f"The option '{field.name}' of the method '{getattr(self, 'name', '')}' is '{value}'.",
                    hint=f"It should be {_wanted(about)}.",
                )

    def parameters(self) -> dict[str, str | int | float | bool | None]:
        """Every option, as manifests record it."""
        assert dataclasses.is_dataclass(self)
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def described(kind: type, package: str) -> MethodDescription:
    """What the class of a method says of itself; `package` brought it."""
    paper = _text(getattr(kind, "paper", None))
    return MethodDescription(
        name=getattr(kind, "name", kind.__name__),
        summary=(inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " "),
        paper=paper,
        url=url_of(paper),
        citation=_text(getattr(kind, "citation", None)),
        needs=_words(getattr(kind, "needs", ())),
        cost=_text(getattr(kind, "cost", None)),
        package=package,
        options=_options_of(kind),
    )


def url_of(paper: str | None) -> str | None:
    """Where a paper is read: a URL stays, arXiv:NUMBER becomes one, anything else has none."""
    if paper is None or paper.startswith(("https://", "http://")):
        return paper
    match = _ARXIV.fullmatch(paper)
    return f"https://arxiv.org/abs/{match[1]}" if match else None


def _options_of(kind: type) -> tuple[MethodOption, ...]:
    fields = (
        {field.name: field for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    )
    options = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        about = fields[name].metadata.get("option", {}) if name in fields else {}
        default = None if parameter.default is parameter.empty else parameter.default
        if not isinstance(default, bool | int | float | str):
            default = None
        options.append(
            MethodOption(
                name=name,
                type=_type_name(about.get("kind", type(default))),
                default=default,
                choices=about.get("choices", ()),
                minimum=about.get("minimum"),
                maximum=about.get("maximum"),
                description=about.get("description", ""),
            )
        )
    return tuple(options)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _words(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, value))


def _type_name(kind: type) -> str:
    return {bool: "boolean", int: "integer", float: "number"}.get(kind, "text")


def _fits(value: object, default: object, about: dict[str, Any]) -> bool:
    if value is None:
        return default is None
    kind = about["kind"]
    kinds = (int, float) if kind is float else (kind,)
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kinds):
        return False
    if isinstance(value, str):
        return not about["choices"] or value in about["choices"]
    low, high = about["minimum"], about["maximum"]
    return (low is None or value >= low) and (high is None or value <= high)


def _wanted(about: dict[str, Any]) -> str:
    if about["choices"]:
        return f"one of {', '.join(about['choices'])}"
    wanted = _KINDS[about["kind"]]
    low, high = about["minimum"], about["maximum"]
    if low is not None and high is not None:
        return f"{wanted} from {low:g} to {high:g}"
    return wanted if low is None else f"{wanted} from {low:g} on"
