"""A method by its name, made with its options, and what it makes, checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from modhub.artifact.modules import Decomposition, ModuleDraft
from modhub.data import ImageSet
from modhub.decomposition.installed import installed_method
from modhub.decomposition.method import Method
from modhub.decomposition.methods import METHODS
from modhub.decomposition.options import DecomposeOptions
from modhub.decomposition.parent import Parent, wanted_rows
from modhub.devices import torch_defaults
from modhub.errors import CompositionError, DataError, MethodError, ModhubError
from modhub.manifest import MethodInfo
from modhub.parents import callable_of, parsed_arguments
from modhub.refs import is_text
from modhub.reporter import SILENT, Reporter

__all__ = ["METHODS", "decompose", "drafted", "method_of"]


@torch_defaults()
def decompose(
    parent: Parent,
    images: ImageSet,
    *,
    method: str | Method = "relevance",
    options: DecomposeOptions | None = None,
    reporter: Reporter = SILENT,
) -> Decomposition:
    """One draft per class of `parent` from training `images`. Raises `DataError` and `MethodError`.

    The same parent, images, method and options give the same drafts.
    """
    made = method_of(method)
    called = method if isinstance(method, str) else made.name
    return drafted(made, called, parent, images, options or DecomposeOptions(), reporter)


def method_of(name: str | Method, options: Mapping[str, Any] | None = None) -> Method:
    """A method by its name or as FILE.py:CLASS, made with `options` as text; one that was made stays.

    Names are those of `METHODS`, then those that installed packages give to theirs.

    Raises `DataError` for a name or an option that there is not, `ParentError` for a file without it, and
    `MethodError` for what is no method or cannot be made.
    """
    if not isinstance(name, str):
        return _checked(name, type(name).__name__)
    path, colon, called = name.rpartition(":")
    own = bool(colon) and path.endswith(".py")
    kind: Callable[..., Any]
    if own:
        kind = callable_of(Path(path), called, "A method is FILE.py:CLASS.")
    else:
        kind = METHODS[name] if name in METHODS else installed_method(name)
    options = options or {}
    with _naming(name, "cannot be made"):
        known = inspect.signature(kind).parameters
    open_ended = any(each.kind is each.VAR_KEYWORD for each in known.values())
    for key in options:
        if key not in known and not open_ended:
            raise DataError(
                f"The method '{name}' has no option '{key}'.",
                hint=f"It has: {', '.join(known) or 'none'}.",
            )
    for key, each in known.items():
        named = each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        if named and each.default is each.empty and key not in options:
            raise MethodError(
                f"The method '{name}' has no default for its option '{key}'.",
                hint=f"Give it: --method-option {key}=…",
            )
    with _naming(name, "cannot be made"):
        method: object = kind(**parsed_arguments(options))
    return _checked(method, name)


def drafted(
    method: Method,
    called: str,
    parent: Parent,
    images: ImageSet,
    options: DecomposeOptions,
    reporter: Reporter,
) -> Decomposition:
    """What a method makes of a parent, a draft for each wanted class, in the parent's order.

    A method may be anyone's: what goes wrong in it names it as it was `called`. Raises `MethodError`, and
    what the method says of the data or the parent.
    """
    # A mistake in modhub's own is modhub's.
    with nullcontext() if _ours(type(method)) else _naming(called, "failed"):
        done: object = method.decompose(parent, images, options, reporter)
    if not isinstance(done, Decomposition):
        raise MethodError(
            f"The method '{called}' returned {_kind_of(done)}, not a Decomposition.", hint=_HINT
        )
    if odd := [each for each in done.modules if not isinstance(each, ModuleDraft)]:
        raise MethodError(
            f"The method '{called}' made {_kind_of(odd[0])} where a ModuleDraft is expected.", hint=_HINT
        )
    if not isinstance(done.method, MethodInfo) or done.method.name != method.name:
        raise MethodError(
            f"The method '{called}' does not say in what it returns that its name is '{method.name}'.",
            hint=_HINT,
        )
    found = [draft.label for draft in done.modules]
    wanted = [parent.labels[row] for row in wanted_rows(parent, options)]
    if found != wanted:
        raise MethodError(
            f"The method '{called}' made modules of {_named(found)}; asked for, in this order, were "
            f"{_named(wanted)}.",
            hint=_HINT,
        )
    return done


def _checked(method: object, called: str) -> Method:
    """Raises `MethodError` for what is no method."""
    name, paper = getattr(method, "name", None), getattr(method, "paper", None)
    if not callable(getattr(method, "decompose", None)):
        wrong = "has no decompose()"
    elif not (isinstance(name, str) and name and is_text(name)):
        wrong = f"has {name!r} as its name, where a line of text is expected"
    elif not hasattr(method, "paper") or not (paper is None or (isinstance(paper, str) and is_text(paper))):
        wrong = (
            f"has {paper!r} as its paper" if hasattr(method, "paper") else "does not name its paper, or None"
        )
    elif _ours(METHODS.get(name)) and type(method) is not METHODS[name]:
        # What stands in manifests must say which of the two it was.
        wrong = f"bears the name of modhub's own '{name}'"
    else:
        return method  # type: ignore[return-value]
    raise MethodError(f"The method '{called}' {wrong}.", hint=_HINT)


def _ours(kind: type | None) -> bool:
    return kind is not None and kind.__module__.startswith("modhub.")


@contextmanager
def _naming(called: str, what: str) -> Iterator[None]:
    """Errors that are not modhub's, and an end of the process, as a `MethodError` that names the method."""
    try:
        yield
    except CompositionError as error:
        raise MethodError(f"The method '{called}' {what}: {error.message}", hint=error.hint) from error
    except (ModhubError, MemoryError, BrokenPipeError):
        raise
    except (Exception, SystemExit) as error:
        said = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise MethodError(
            f"The method '{called}' {what}: {type(error).__name__}{': ' if said else ''}{said}.",
            hint="Run it again with MODHUB_DEBUG=1 to see where.",
        ) from error


_HINT = "What a method needs is in docs/writing-a-method.md."
_SHOWN = 5


def _kind_of(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _named(labels: list[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:_SHOWN]) or "no class"
    return f"{shown} and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else shown
