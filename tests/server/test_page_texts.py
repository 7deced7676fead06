"""What the pages say, read as a program reads them: commands that work as they stand, counts, ways on."""

from __future__ import annotations

import ast
import gzip
import html
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest

from modhub.labels import slug_of
from modhub.refs import Ref, RepositoryId
from modhub.server.web.markdown import card_html
from modhub.store.model import Add
from modhub.store.records import RepositoryKey
from modhub.store.store import Store
from tests.support.hub_server import Answer, Server, serving
from tests.support.hub_world import push

ODD = ("it's a cat", "<b>bold</b>", 'say "hi"', "a/b", "C++", "قطة كبيرة", "emoji 😀", "v>=1", "x" * 190)
FIELDS = ("input", "select", "textarea")
BROWSER = {"Accept": "text/html"}


class Reader(HTMLParser):
    """What is wrong with a page: tags left open or closed too soon, ids twice, labels and names of nothing,
    headings out of order."""

    VOID = frozenset(["br", "hr", "img", "input", "link", "meta", "wbr"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.ids: dict[str, str] = {}
        self.named: list[str] = []
        self.fields: list[str] = []
        self._open: list[str] = []
        self._level = 0
        self.feed(text)
        self.close()
        self.wrong += [f"<{tag}> is never closed" for tag in self._open]
        self.wrong += [f"nothing has the id {name}" for name in self.named if name not in self.ids]
        self.wrong += [f"{one} is no field" for one in self.fields if self.ids.get(one) not in FIELDS]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            if given["id"] in self.ids:
                self.wrong.append(f"the id {given['id']} stands twice")
            self.ids[given["id"]] = tag
        self.named += [given["aria-labelledby"]] if "aria-labelledby" in given else []
        self.fields += [given["for"]] if "for" in given else []
        if re.fullmatch("h[1-6]", tag):
            if int(tag[1]) > self._level + 1:
                self.wrong.append(f"<{tag}> follows a heading of level {self._level}")
            self._level = int(tag[1])
        if given.get("tabindex") == "0" and tag != "pre" and not {"aria-label", "aria-labelledby"} & {*given}:
            self.wrong.append(f"<{tag}> is a stop of the keyboard without a name")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """In SVG that closes it."""

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        else:
            self.wrong.append(f"</{tag}> closes {self._open[-1:]}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("hub")
    push(root, "lab/net", ("cat", "dog"))
    push(root, "lab/odd", ODD, seed=1)
    push(root, "lab/versions", ("cat", "lynx"), seed=2)
    store = Store(root)
    key = RepositoryKey.model("lab/versions")
    for version in [*(f"1.{minor}.0" for minor in range(1, 60)), "2.0rc1"]:
        made = store.commits.create(key, [Add("notes.txt", version.encode())], title=f"Release {version}")
        store.tags.create(key, f"v{version}", revision=made.id)
    store.commits.create(
        key, [Add("yanked.json", b'{"1.59.0": "labels are swapped"}')], title="Take back 1.59.0"
    )
    broken = RepositoryKey.model("lab/broken")
    store.repositories.create(broken, actor="lab")
    store.commits.create(broken, [Add("modhub.json", b"{}")], title="Nonsense")
    store.close()
    with serving(root) as server:
        yield server


def read(server: Server, path: str, status: int = 200) -> str:
    """A page's HTML, in which nothing is wrong."""
    answer = server.ask("GET", path, headers=BROWSER)
    assert answer.status == status, (path, answer.status)
    text = answer.body.decode()
    assert Reader(text).wrong == [], path
    return text


def commands(page: str) -> list[str]:
    """The commands and programs on a page, as somebody copies them."""
    return [
        html.unescape(re.sub("<[^>]*>", "", found))
        for found in re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.S)
    ]


def refs(page: str) -> tuple[str, str]:
    """What the shell and what Python makes of the ref in a page's two commands."""
    shell, python = (text for text in commands(page) if "--hub " in text or "hub=" in text)
    words = shlex.split(shell)
    assert words[:2] == ["modhub", "pull"]
    texts = [node.value for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Constant)]
    return words[2], str(texts[0])


@pytest.mark.parametrize("label", ODD)
def test_a_command_names_its_module_whatever_its_label(server: Server, label: str) -> None:
    page = read(server, f"/lab/odd/modules/{quote(slug_of(label))}")
    shell, python = refs(page)
    assert shell == python
    assert Ref.parse(shell).label in (label, slug_of(label))
    assert "<b>bold" not in page


def test_a_command_means_the_release_that_is_shown(server: Server) -> None:
    for path, wanted in (
        ("/lab/versions", "lab/versions"),
        ("/lab/versions?revision=v1.3.0", "lab/versions==1.3.0"),
        ("/lab/versions/modules/cat", "lab/versions/cat"),
        ("/lab/versions/modules/cat?revision=v1.3.0", "lab/versions/cat==1.3.0"),
        ("/lab/versions/modules/cat?revision=v1.58.0", "lab/versions/cat==1.58.0"),
    ):
        assert refs(read(server, path)) == (wanted, wanted), path
    (shell, _) = refs(read(server, "/lab/versions?revision=main"))
    assert re.fullmatch("lab/versions@[0-9a-f]{40}", shell)
    assert refs(read(server, "/lab/net/modules/cat"))[0] == "lab/net/cat"


def test_neither_a_prerelease_nor_a_yanked_release_is_shown_for_a_module(server: Server) -> None:
    assert "1.58.0" in read(server, "/lab/versions/modules/cat").partition("</h1>")[0]
    found = read(server, "/compose?q=lynx")
    assert "1.58.0" in found
    assert "2.0rc1" not in found


def test_a_yanked_release_says_so_and_leads_to_an_active_one(server: Server) -> None:
    for path in ("/lab/versions?revision=v1.59.0", "/lab/versions/modules/cat?revision=v1.59.0"):
        page = read(server, path)
        assert "Release 1.59.0 is yanked: labels are swapped." in page
        assert 'The newest active release is <a href="/lab/versions?revision=v1.58.0">1.58.0</a>' in page
    assert "is yanked" not in read(server, "/lab/versions?revision=v1.58.0")


def test_a_manifest_that_cannot_be_read_is_not_passed_over_in_silence(server: Server) -> None:
    page = read(server, "/lab/broken")
    assert re.search(r"modhub\.json of &#39;lab/broken&#39; at \w{12} has no &#39;schema_version&#39;", page)
    assert "cannot be read" not in read(server, "/lab/net")


def test_a_mistyped_class_is_answered_with_its_likes_when_composing(server: Server) -> None:
    for path in ("/compose?q=lynks", "/compose?q=Lynks!"):
        page = read(server, path)
        assert "Did you mean" in page
        assert 'href="/compose?q=lynx"' in page
    assert "Nearest: lynx." in read(server, "/compose?pick=lynks")
    assert "Did you mean" not in read(server, "/compose?q=qqqqqq")
    assert "No modules for" in read(server, "/compose?q=%21%21")


def test_names_that_may_not_be_seen_are_not_suggested(tmp_path: Path) -> None:
    push(tmp_path, "lab/secret", ("wolverine",), private=True)
    with serving(tmp_path) as hidden:
        assert "wolverine" not in read(hidden, "/compose?q=wolverin")
        answer = hidden.ask("GET", "/compose?q=wolverin", "reader", headers=BROWSER)
        assert b'href="/compose?q=wolverine"' in answer.body


def test_picks_are_taken_away_and_keep_what_was_looked_for(server: Server) -> None:
    answer = server.ask("GET", "/compose?pick=lab/net/cat&pick=lab/net/dog&q=lynx&without=lab/net/cat")
    assert answer.status == 303
    assert answer.headers["location"] == "/compose?pick=lab%2Fnet%2Fdog&q=lynx"
    page = read(server, "/compose?pick=lab/net/dog&q=lynx")
    pick = re.search(
        r"<form[^>]*>((?:(?!<form).)*)<button[^>]*aria-label=\"Pick lab/versions/lynx\"", page, re.S
    )
    assert pick is not None
    assert '<input type="hidden" name="pick" value="lab/net/dog">' in pick[1]
    assert '<input type="hidden" name="q" value="lynx">' in pick[1]


def test_a_page_grows_with_the_picks_and_not_with_their_square(server: Server) -> None:
    def size(count: int) -> int:
        picks = "&".join(f"pick=c{number}%20%3D%20lab/net/cat" for number in range(count))
        return len(read(server, f"/compose?{picks}&q=cat"))

    few, some, many = size(10), size(60), size(110)
    assert many - some < 1.2 * (some - few)
    assert "At most 200 picks are supported" in read(
        server, "/compose?" + "&".join(f"pick=c{number}%20%3D%20lab/net/cat" for number in range(201))
    )


def test_words_that_find_nothing_are_answered_with_what_may_have_been_meant(server: Server) -> None:
    page = read(server, "/?q=lynks&sort=name")
    assert "No repositories match" in page
    assert 'href="/?q=lynx&amp;sort=name"' in page
    page = read(server, "/?q=lynx")
    assert "1 repository has the class" in page
    assert '<a href="/?class=lynx">' in page
    assert '<a href="/compose?q=lynx">Compare these modules</a>' in page


def test_a_list_has_as_many_pages_as_it_says(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(61):
        store.repositories.create(RepositoryKey.model(f"lab/plain-{number}"), actor="lab")
    store.repositories.create(RepositoryKey.model("other/lab-plain"), actor="other")
    store.close()
    push(tmp_path, "zoo/many", [f"kind {number}" for number in range(20)])
    with serving(tmp_path) as long:
        seen = [
            re.findall(r'<h2><a href="/([^"]+)"', read(long, f"/?author=lab&page={one}")) for one in (1, 2, 3)
        ]
        assert [len(one) for one in seen] == [30, 30, 1]
        assert len({name for one in seen for name in one}) == 61
        assert all(name.startswith("lab/") for one in seen for name in one)
        last = read(long, "/?author=lab&page=3")
        assert "Page 3 of 3" in last
        assert 'rel="next"' not in last
        assert "page 3" in re.findall("<title>(.*?)</title>", last)[0]
        # A bookmark of a page that is no more, or never was.
        assert read(long, "/?author=lab&page=99") == last
        # The class that was asked for is among the few that are shown.
        assert '<bdi class="tag">kind-19</bdi>' in read(long, "/?class=kind-19")
        assert "No data sets yet." in read(long, "/?kind=dataset")
        assert '<a href="/?q=plain-7">1 model</a> matches' in read(long, "/?q=plain-7&kind=dataset")


def test_an_empty_hub_says_how_it_is_filled(tmp_path: Path) -> None:
    with serving(tmp_path) as bare:
        page = read(bare, "/")
        assert "This hub has no public repositories yet" in page
        assert "modhub push DIR namespace/name --version 1.0.0 --hub http://127.0.0.1" in commands(page)[0]
        assert "No repositories match" not in page
        read(bare, "/compose?q=cat")


def test_all_releases_and_all_of_the_history_can_be_reached(server: Server) -> None:
    page = read(server, "/lab/versions")
    shown = re.findall(r'<li><a href="/lab/versions\?revision=v([^"]+)"', page)
    assert len(shown) == 61
    assert shown[:2] == ["2.0rc1", "1.59.0"]
    assert "<details><summary>51 older</summary>" in page
    titles: list[str] = []
    address: str | None = "/lab/versions/commits/main"
    while address:
        page = read(server, address)
        titles += re.findall("<h2><bdi>(.*?)</bdi></h2>", page)
        older = re.search(r'<a rel="next" href="([^"]+)"', page)
        address = older[1] if older else None
    assert len(titles) == len(set(titles)) == 63, "61 releases, one taken back, and the first commit"
    assert titles[0] == "Take back 1.59.0"


def test_what_is_missing_is_named_with_a_way_on(server: Server) -> None:
    page = read(server, "/lab/versions?revision=v9", 404)
    assert "“v9” is not a release, branch or commit of lab/versions." in page
    assert '<a href="/lab/versions">Back to lab/versions</a>' in page
    page = read(server, "/lab/net/modules/cta", 404)
    assert "There is no module &#39;cta&#39; in lab/net. Nearest: cat." in page
    assert '<a href="/lab/net">Back to lab/net</a>' in page
    assert "lab/net has no file or folder “no/where” at this revision." in read(
        server, "/lab/net/tree/main/no/where", 404
    )
    assert "Back to lab/nothing" not in read(server, "/lab/nothing", 401)
    page = read(server, "/?page=two", 400)
    assert "must be a number, not &#39;two&#39;" in page


def test_whoever_logs_in_comes_back_to_where_they_were(tmp_path: Path) -> None:
    push(tmp_path, "lab/secret", ("cat",), private=True)
    with serving(tmp_path) as hidden:

        def enter(wanted: str, token: str = "reader-token-0123456789") -> tuple[int, str]:
            form = f"token={token}&next={quote(wanted, safe='')}".encode()
            answer = hidden.ask("POST", "/login", body=form, headers=BROWSER)
            return answer.status, answer.headers.get("location", "")

        page = read(hidden, "/lab/secret/modules/cat?revision=main", 401)
        link = re.search(r'<a rel="nofollow" href="(/login\?next=[^"]+)"', page)
        assert link is not None
        form = read(hidden, html.unescape(link[1]))
        field = re.search(r'<input type="hidden" name="next" value="([^"]+)"', form)
        assert field is not None
        wanted = html.unescape(field[1])
        assert enter(wanted) == (303, "/lab/secret/modules/cat?revision=main")
        # A mistyped token does not lose the way.
        assert enter(wanted, "wrong")[0] == 401
        for elsewhere in (
            "//evil.example/x",
            "/\\evil.example",
            "https://evil.example",
            "javascript:x",
            "/\t/evil",
        ):
            assert enter(elsewhere) == (303, "/"), elsewhere
            assert 'name="next"' not in read(hidden, f"/login?next={quote(elsewhere, safe='')}")


def test_who_may_read_what_is_not_for_everybody_is_told_that_a_token_is_needed(tmp_path: Path) -> None:
    push(tmp_path, "lab/secret", ("cat",), private=True)
    push(tmp_path, "lab/open", ("cat",))
    with serving(tmp_path) as hidden:
        for path in ("", "/modules/cat"):
            shown = hidden.ask("GET", f"/lab/secret{path}", "reader", headers=BROWSER)
            assert b"HF_TOKEN" in shown.body
            assert "HF_TOKEN" not in read(hidden, f"/lab/open{path}")
        shown = hidden.ask("GET", "/compose?pick=lab/secret/cat", "reader", headers=BROWSER)
        assert b"lab/secret requires a token with read access in <code>HF_TOKEN</code>" in shown.body
        assert "HF_TOKEN" not in read(hidden, "/compose?pick=lab/open/cat")


def test_a_repository_without_modules_says_how_it_is_got_or_filled(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for kind, name in (("model", "lab/plain"), ("dataset", "lab/set"), ("model", "lab/bare")):
        key = RepositoryKey(kind, RepositoryId.parse(name))
        store.repositories.create(key, actor="lab")
        if name != "lab/bare":
            store.commits.create(key, [Add("README.md", b"### Deep\n\n# High\n\n### Deep\n")], title="One")
    store.close()
    with serving(tmp_path) as plain:
        assert commands(read(plain, "/lab/plain"))[0] == f"HF_ENDPOINT={plain.address} hf download lab/plain"
        page = read(plain, "/datasets/lab/set")
        assert commands(page)[0].endswith("hf download lab/set --repo-type dataset")
        # The card's headings keep their order below the page's own and skip no level.
        assert re.findall("<(h[2-6])>(Deep|High)", page) == [("h2", "Deep"), ("h2", "High"), ("h3", "Deep")]
        page = read(plain, "/lab/bare")
        assert "modhub push DIR lab/bare --version 1.0.0" in commands(page)[0]


def test_a_style_is_kept_for_good_under_an_address_of_its_own(server: Server) -> None:
    page = read(server, "/")
    addresses = re.findall(r'<link rel="(?:stylesheet|icon)" href="([^"]+)"', page)
    assert len(addresses) == 2
    for address in addresses:
        assert "immutable" in server.ask("GET", address).headers["cache-control"]
        assert server.ask("GET", address + "0").headers["cache-control"] == "no-cache"
    assert server.ask("GET", "/static/style.css").headers["cache-control"] == "no-cache"


def test_what_a_picture_shows_is_said_in_words(server: Server) -> None:
    page = read(server, "/lab/versions/modules/cat")
    caption = re.search(r"Of this module’s channels, <bdi>lynx</bdi> keeps (\d+\.\d)\u00a0%\.", page)
    assert caption is not None
    assert f"cat and lynx: {float(caption[1]):.0f} % shared" in page


def test_a_large_page_is_packed_for_those_who_can_unpack_it(server: Server) -> None:
    def ask(accepted: str) -> Answer:
        sent = {**BROWSER, "Accept-Encoding": accepted}
        return server.ask("GET", "/lab/versions/modules/cat", headers=sent)

    plain = ask("identity")
    assert "content-encoding" not in plain.headers
    assert "Accept-Encoding" in plain.headers["vary"]
    packed = ask("deflate, gzip;q=0.8, br")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 3
    assert ask("gzip;q=0").body == plain.body


def test_an_image_from_elsewhere_gives_way_to_its_words() -> None:
    shown = card_html(
        "![a *cat*](https://evil.example/x.png) ![own](cat.png) ![](//evil.example/y.png)", "/files"
    )
    assert shown == '<p>a cat <img src="/files/cat.png" alt="own"> </p>\n'


def test_a_title_says_which_of_many_pages_it_is(server: Server) -> None:
    paths = [
        "/",
        "/?q=cat",
        "/?kind=dataset",
        "/?author=lab",
        "/lab/versions",
        "/lab/versions?revision=v1.3.0",
        "/lab/versions/modules/cat",
        "/lab/versions/modules/cat?revision=v1.3.0",
        "/lab/versions/tree/main",
        "/lab/versions/tree/v1.3.0",
        "/lab/versions/tree/main/modules",
        "/lab/versions/commits/main",
        "/compose",
        "/login",
    ]
    titles = [re.findall("<title>(.*?)</title>", read(server, path))[0] for path in paths]
    assert len(set(titles)) == len(paths), titles


def test_a_class_is_found_among_many_of_one_repository(tmp_path: Path) -> None:
    push(tmp_path, "lab/many", [*(f"kind {number}" for number in range(99)), "great white shark"])
    push(tmp_path, "lab/few", ("cat", "dog"))
    with serving(tmp_path) as large:
        assert 'name="q" value=""> <button>Search</button>' in read(large, "/lab/many")
        assert 'name="q" value=""> <button>Search</button>' not in read(large, "/lab/few")
        page = read(large, "/lab/many?q=Shark++great&revision=v1.0.0")
        assert re.findall(r'href="/lab/many/modules/([^?"]+)', page) == ["great-white-shark"]
        assert "1 of 100 modules" in page
        assert '<input type="hidden" name="revision" value="v1.0.0">' in page
        assert '<a href="/lab/many?revision=v1.0.0">Show all</a>' in page
        page = read(large, "/lab/many?q=%3Cb%3E")
        assert "No class of this repository matches “<bdi>&lt;b&gt;</bdi>”." in page


def test_all_values_to_narrow_by_can_be_seen(server: Server, tmp_path: Path) -> None:
    push(tmp_path, "lab/many", [f"kind {number}" for number in range(40)])
    push(tmp_path, "zoo/one", ("puma",))
    with serving(tmp_path) as large:

        def classes(page: str) -> list[str]:
            return re.findall(r'<a href="/\?[^"]*class=([^"&]+)"><bdi>', page)

        page = read(large, "/?sort=name")
        assert len(classes(page)) == 12
        more = re.search(r'<a href="([^"]+)#narrow" aria-label="Show all values of class">Show all</a>', page)
        assert more is not None
        page = read(large, html.unescape(more[1]))
        assert len(classes(page)) == 41
        assert "Show all values of class" not in page
        # What was counted for one namespace is not shown for another.
        assert classes(read(large, "/?author=zoo")) == ["puma"]
        assert len(classes(read(large, "/?author=lab"))) == 12


def test_a_gate_shows_the_way_in_and_a_wrong_address_does_not(tmp_path: Path) -> None:
    push(tmp_path, "lab/gated", ("cat",))
    with serving(tmp_path) as gated:
        assert gated.ask("PUT", "/api/models/lab/gated/settings", "alice", {"gated": "manual"}).status == 200
        for path in ("/lab/gated", "/lab/gated/modules/cat"):
            main = read(gated, path).partition("<main")[2]
            assert f'<a href="/login?next={quote(path, safe="")}">Log in</a>' in main
            seen = gated.ask("GET", path, "reader", headers=BROWSER).body.decode()
            assert "/login" not in seen
        assert "/login" not in read(gated, "/?page=two", 400).partition("<main")[2]


def test_a_card_without_end_is_shown_as_far_as_it_is_worth_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = RepositoryKey.model("lab/long")
    store.repositories.create(key, actor="lab")
    text = "".join(f"Line {number} of many.\n\n" for number in range(70_000))
    store.commits.create(
        key, [Add("README.md", f"---\nlicense: mit\n---\n# Long\n\n{text}".encode())], title="One"
    )
    store.close()
    assert len(text) > 1 << 20
    with serving(tmp_path) as server:
        page = read(server, "/lab/long")
        assert "Line 9999 of many." in page
        assert "Line 60000 of many." not in page
        found = re.search(r'The card is truncated: <a href="([^"]+)">', page)
        assert found is not None
        assert b"Line 69999 of many." in server.ask("GET", found[1]).body
        assert "has no card" not in page
