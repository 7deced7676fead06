import re
import tomllib
from pathlib import Path

import pytest

from modhub.nets.architectures import ARCHITECTURES
from modhub.parents import load_parent
from modhub_cli.main import COMMANDS
from modhub_cli.pages import index_page, page_of

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "commands"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_page(name):
    page = PAGES / f"{name}.md"
    assert page.read_text(encoding="utf-8") == page_of(name), "python -m modhub_cli.pages docs/commands"


def test_no_page_without_a_command():
    assert {page.stem for page in PAGES.glob("*.md")} == {*COMMANDS, "README"}
    assert (PAGES / "README.md").read_text(encoding="utf-8") == index_page()


def documents():
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_container_has_what_the_server_needs():
    page = (ROOT / "docs" / "hub.md").read_text(encoding="utf-8")
    words = page.partition("--no-cache-dir ")[2].partition("\nCOPY")[0].replace("\\", " ").split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    assert set(words) == {re.split("[><=]", one)[0] for one in needed} - {"torch", "torchvision"}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_shown_exist(path):
    text = path.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL))
    code += "\n".join(re.findall(r"^    .*", text, re.MULTILINE)).replace("    ", "")
    for name in re.findall(r"^modhub ([a-z]+)", code, re.MULTILINE):
        assert name in COMMANDS


def test_a_parent_is_written_as_the_page_says(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {"model": ARCHITECTURES["resnet20"].build(2)})
    assert load_parent("parent").labels == ("cat", "dog")
