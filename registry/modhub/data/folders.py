"""How people lay out folders of images: a folder for each class, perhaps inside a folder for each split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from modhub.errors import DataError
from modhub.images import has_images, is_hidden

_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "train"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
    **dict.fromkeys(("eval", "evaluation"), "evaluation"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("dev", "devel", "development", "holdout", "heldout"), "development"),
}
_OF_SPLIT = {"train": ("train",), "test": ("test", "evaluation", "validation", "development")}
"""What serves as a split, the first that there is."""
_RECORDED = ("train", "training", "test", "val", "valid", "validation")
"""Names that are recorded as they are; what others stand for is recorded instead."""
_FILLERS = (
    *("set", "sets", "data", "dataset", "image", "images", "img", "imgs", "picture", "pictures", "photos"),
    *("split", "folder", "files", "samples", "examples"),
)
_BETWEEN_WORDS = re.compile(r"[\W_]+|(?<=[a-z])(?=[A-Z])|(?<=[^\W\d])(?=\d)")


def split_folder(root: Path, split: str) -> Path:
    """The folder of a data folder to take the images of `split` from: `root` itself where its folders are
    classes.

    Folders are splits where their names say so and nothing else stands beside them. Raises `DataError` where
    they may be splits as well as classes, where two folders serve the split, and where none does.
    """
    folders = [folder for folder in subfolders(root) if has_images(folder)]
    words = _split_words([folder.name for folder in folders])
    named = [folder for folder in folders if folder.name in words]
    others = [folder for folder in folders if folder.name not in words]
    if not named:
        return root
    kinds = Counter(words.values())
    # Beside others a single one is a class, like pictures of trains, unless it holds their classes.
    if others and len(kinds) == 1 and not _same_classes(named, others):
        return root
    if others or (len(named) > 1 and len(kinds) == 1):
        beside = f" beside '{others[0].name}'" if others else ""
        raise DataError(
            f"The folders {_listed(named)} in '{root}'{beside} may be splits, or classes.",
            hint=f"For a split, name its folder: imagefolder:{named[0]}. For classes: classes:{root}",
        )
    for word in _OF_SPLIT.get(split, ()):
        serving = [folder for folder in named if words[folder.name] == word]
        if len(serving) > 1:
            raise DataError(
                f"The folders {_listed(serving)} in '{root}' may both be the split '{split}'.",
                hint=f"Name one of them: imagefolder:{serving[0]} or imagefolder:{serving[1]}",
            )
        if serving:
            return serving[0]
    raise DataError(
        f"The data folder '{root}' has no '{split}' split.",
        hint=f"It has: {', '.join(folder.name for folder in named)}.",
    )


def check_classes(root: Path, folders: Sequence[Path]) -> None:
    """Raises `DataError` where all folders in `root` hold folders of the same names: these may be the classes
    and the folders parts of the images, such as folds."""
    inside = [{each.name.casefold() for each in subfolders(folder) if has_images(each)} for folder in folders]
    if len(inside) > 1 and len(inside[0]) > 1 and all(names == inside[0] for names in inside):
        below = _listed([each for each in subfolders(folders[0]) if has_images(each)])
        raise DataError(
            f"The folders {_listed(folders)} in '{root}' all hold the folders {below}: either may be the "
            "classes.",
            hint=f"For one of them alone, name it: imagefolder:{folders[0]}. For classes: classes:{root}",
        )


def subfolders(root: Path) -> list[Path]:
    """The folders in `root`, linked ones too, by name; hidden ones are passed over."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))


def set_name(root: Path) -> str:
    """A folder's name without its place on this machine; a split folder is named by its parent."""
    root = root.resolve()
    return root.parent.name if split_name(root) and root.parent.name else root.name


def split_name(folder: Path) -> str | None:
    """The split that a folder's name alone says it is, as manifests record it: test, validation, …"""
    name = folder.name.casefold()
    word = name if name in _RECORDED else _split_words([folder.name]).get(folder.name)
    return "validation" if word in ("evaluation", "development") else word


def _split_words(names: Sequence[str]) -> dict[str, str]:
    """Which split each of the folder names stands for, of those that stand for one.

    `train_set`, `Testing` and `val2017` do by themselves; `seg_train` beside `seg_test`, that is where names
    differ in the word for the split alone.
    """
    split = {name: pair for name in names if (pair := _parsed(name)) is not None}
    words_by_prefix: dict[str, set[str]] = {}
    for prefix, word in split.values():
        words_by_prefix.setdefault(prefix, set()).add(word)
    return {
        name: word for name, (prefix, word) in split.items() if not prefix or len(words_by_prefix[prefix]) > 1
    }


def _parsed(name: str) -> tuple[str, str] | None:
    """What stands before the word for a split at the end of a name, and which split it is."""
    words = [word.casefold() for word in _BETWEEN_WORDS.split(name) if word]
    while len(words) > 1 and (words[-1].isdecimal() or words[-1] in _FILLERS):
        words.pop()
    while len(words) > 1 and (words[0].isdecimal() or words[0] in _FILLERS):
        words.pop(0)
    if not words:
        return None
    last = words.pop()
    for filler in ("", *_FILLERS):
        if last.endswith(filler) and (word := _WORDS.get(last.removesuffix(filler))):
            return " ".join(words), word
    return None


def _same_classes(named: Sequence[Path], others: Sequence[Path]) -> bool:
    """Whether folders in `named` are called as the `others`, or as folders in these."""
    inside = {folder.name.casefold() for parent in named for folder in subfolders(parent)}
    beside = {folder.name.casefold() for parent in others for folder in (parent, *subfolders(parent))}
    return bool(inside & beside)


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(f"'{folder.name}'" for folder in folders[:5])
