"""Names of classes: which class a name means, and the path component that stands for a label.

A name means the class that is written like it, else the one that differs in case alone, else the one with the
same words: separators (blanks, `_`, `-`, commas, brackets) do not count, signs do. So `Aquarium fish` is
`aquarium_fish`, but `C` is not `C++`, `5` not `+5`, and `A` not `A-`.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from modhub.errors import AmbiguousClassError, RefError

LABEL_LIMIT = 200
"""Characters of a label, at most."""
_SLUG_CHARACTERS = 96
_SLUG_BYTES = 240  # of one part of a path in a repository
_SIGNS = frozenset("#%&*@!?\\")
_PLACED = ("<super>", "<sub>", "<circle>")
_CACHED = 1 << 15


def spelling_of(label: str) -> str:
    """The label in Unicode's normal form C: two labels with one spelling are the same text."""
    return unicodedata.normalize("NFC", label)


@lru_cache(_CACHED)
def slug_of(label: str) -> str:
    """A label as a path component: `Great white shark` → `great-white-shark`.

    Letters and digits of any script stay with their marks (NFKC, lower case); every run of other characters
    becomes one hyphen. A label of signs alone is called as Unicode calls them: `+` → `plus-sign`. At most 96
    characters and 240 bytes. Raises `RefError` for a label of blanks.
    """
    slug = _cut("-".join(_words(_folded(label))), _SLUG_CHARACTERS)
    if not slug:
        raise RefError(f"The label {label!r} has no visible character.", hint="Give the class another label.")
    return slug


def slugs_of(labels: Iterable[str]) -> tuple[str, ...]:
    """The slug of each label, repeats told apart by a counter: C, C++ → c, c-2. Raises `RefError`."""
    taken: dict[str, None] = {}
    for slug in map(slug_of, labels):
        candidate, count = slug, 1
        while candidate in taken:
            count += 1
            candidate = f"{_cut(slug, 80, _SLUG_BYTES - 16)}-{count}"
        taken[candidate] = None
    return tuple(taken)


def tag_words_of(label: str) -> tuple[str, ...]:
    """The slugs under which hubs list the class `label`: today's, and that of 0.1 where it was another.

    Raises `RefError` for a label of blanks.
    """
    text = unicodedata.normalize("NFKC", label).casefold()
    before = "-".join(re.findall(r"[^\W_]+", text))[:_SLUG_CHARACTERS].strip("-")
    return tuple(dict.fromkeys((slug_of(label), before or slug_of(label))))


class LabelIndex:
    """Which of `labels` a name means.

    `aliases` are other names of a label; a label's own name wins over another label's alias that fits as
    well. `slugs` are their path components (None: those of the labels themselves), which name them, too,
    unless a sign is lost in them without a trace: `c` does not name `C++`.
    """

    def __init__(
        self,
        labels: Sequence[str],
        aliases: Mapping[str, Iterable[str]] | Sequence[Iterable[str]] = (),
        slugs: Sequence[str] | None = None,
    ) -> None:
        self.labels = tuple(labels)
        if isinstance(aliases, Mapping):
            aliases = [aliases.get(label, ()) for label in labels]
        self._aliases = [(alias, place) for place, names in enumerate(aliases) for alias in names]
        self._slugs = slugs
        self._places: dict[Callable[[str], str], tuple[_Places, _Places]] = {}

    def find(self, name: str) -> tuple[int, ...]:
        """The places of the labels that `name` fits best: none, one, or several that it cannot tell apart."""
        return next((places for _, places in self.fits(name)), ())

    def fits(self, name: str) -> Iterable[tuple[int, tuple[int, ...]]]:
        """For each way of reading `name`, the closest first, its number and the labels that fit."""
        for number, form in enumerate(_FORMS):
            if form not in self._places:
                self._places[form] = self._read(form)
            written = form(name)
            for places in self._places[form]:
                if written in places:
                    yield number, tuple(dict.fromkeys(places[written]))
                    break

    def _read(self, form: Callable[[str], str]) -> tuple[_Places, _Places]:
        if form is not _slug:
            numbered = [(label, place) for place, label in enumerate(self.labels)]
            return _by_form(form, numbered), _by_form(form, self._aliases)
        slugs = [slug_of(label) if label.strip() else "" for label in self.labels]
        given = slugs if self._slugs is None else self._slugs
        return _by_form(
            form,
            [
                (slug, place)
                for place, (label, slug, usual) in enumerate(zip(self.labels, given, slugs, strict=True))
                if slug and (slug != usual or _tells(slug, label))
            ],
        ), {}


def one_match(name: str, labels: Sequence[str], places: Sequence[int], where: str) -> int | None:
    """The one place that a name means, None for none. Raises `AmbiguousClassError` for several."""
    if len(places) > 1:
        raise AmbiguousClassError(name, where, [labels[place] for place in places])
    return places[0] if places else None


def nearest_labels(name: str, labels: Sequence[str], count: int = 5) -> list[str]:
    """Up to `count` labels that look like `name`, however they are written; the most alike first."""
    by_key: dict[str, list[str]] = {}
    for label in labels:
        by_key.setdefault(key_of(label), []).append(label)
    near = difflib.get_close_matches(key_of(name), [*by_key], n=count, cutoff=0.5)
    return [label for key in near for label in by_key[key]][:count]


_Places = dict[str, list[int]]


def _by_form(form: Callable[[str], str], names: Iterable[tuple[str, int]]) -> _Places:
    places: _Places = {}
    for name, place in names:
        places.setdefault(form(name), []).append(place)
    return places


def _caseless(label: str) -> str:
    return spelling_of(spelling_of(label).casefold())


def _slug(name: str) -> str:
    return name.casefold()


@lru_cache(_CACHED)
def _folded(label: str) -> str:
    """The label without case and compatibility forms."""
    text = unicodedata.normalize("NFKC", label)
    # Folding may take a letter apart, and putting it together make one that folds again.
    for _ in range(3):
        text = unicodedata.normalize("NFKC", text.casefold())
    return "".join(sign for sign in text if not "\ufe00" <= sign <= "\ufe0f")


def _runs(text: str) -> list[tuple[bool, str]]:
    """The text as runs of letters, digits and their marks (True) and of all else (False)."""
    runs: list[tuple[bool, str]] = []
    for sign in text:
        word = runs[-1][0] if runs and unicodedata.category(sign) in ("Mn", "Mc") else sign.isalnum()
        if runs and runs[-1][0] == word:
            runs[-1] = word, runs[-1][1] + sign
        else:
            runs.append((word, sign))
    return runs


def _words(text: str) -> list[str]:
    words = [run for word, run in _runs(text) if word]
    return words or [
        unicodedata.name(sign, f"u{ord(sign):04x}").lower().replace(" ", "-")
        for sign in text
        if not sign.isspace()
    ]


@lru_cache(_CACHED)
def key_of(label: str) -> str:
    """What two spellings of one class have in common: the words, and the signs that tell classes apart."""
    text = _folded(label).strip().strip("_").strip()
    runs = _runs(text)
    # Folded, an exponent and a number in a circle are plain numbers, which may be another class.
    placed = "".join(sign for sign in label if unicodedata.decomposition(sign).startswith(_PLACED))
    if not any(word for word, _ in runs):
        return "".join(text.split()) + placed
    parts = []
    for number, (word, run) in enumerate(runs):
        before = runs[number - 1][1][-1] if number else ""
        after = runs[number + 1][1][0] if number + 1 < len(runs) else ""
        parts.append(run if word else _sign(run, before, after) or ("-" if before and after else ""))
    return "".join(parts) + placed


def _sign(run: str, before: str, after: str) -> str:
    """What of a run between two letters or digits, or at an edge, tells classes apart; empty for nothing."""
    signs = [sign for sign in run if not sign.isspace() and sign != "_"]
    kinds = {sign: unicodedata.category(sign) for sign in signs}
    if any(kind[0] == "S" or kind == "Me" or sign in _SIGNS for sign, kind in kinds.items()):
        return "".join(sign for sign in signs if kinds[sign] != "Pc")
    signs = [sign for sign in signs if kinds[sign] not in ("Ps", "Pe", "Cf")]
    dashes = [sign for sign in signs if kinds[sign] == "Pd"]
    edge, digit = not (before and after), before.isdigit() or after.isdigit()
    if dashes:
        # A minus, as in `-5` and `at -5`; or a grade, as in `A-`. Between words it is a separator.
        minus = after.isdigit() and kinds.get(run[-1]) == "Pd" and run[0].isspace()
        return f"{'' if edge else ' '}{''.join(signs)}" if edge or minus else ""
    number = digit if edge else before.isdigit() and after.isdigit()
    return "".join(signs) if number else ""


def _tells(slug: str, label: str) -> bool:
    """Whether a label's slug says all of it: signs have names, or a hyphen in their place; or it was cut."""
    runs = _runs(_folded(label).strip())
    if not any(word for word, _ in runs) or (len(slug) > 75 and key_of(label).startswith(slug)):
        return True
    if not (runs[0][0] and runs[-1][0]):
        return False
    # Refs of 0.1 could not hold these signs; slugs stood for such labels. Between digits they are arithmetic.
    inner = [
        run
        for (_, before), (word, run), (_, after) in zip(runs, runs[1:], runs[2:], strict=False)
        if not word and not (before[-1].isdigit() and after[0].isdigit())
    ]
    return len(inner) == len(runs) // 2 and any(sign in run for run in inner for sign in "/@<>=!~")


def _cut(slug: str, characters: int, size: int = _SLUG_BYTES) -> str:
    return slug[:characters].encode()[:size].decode(errors="ignore").strip("-")


_FORMS: tuple[Callable[[str], str], ...] = (spelling_of, _caseless, key_of, _slug)
"""The ways of reading a name, the closest first."""
