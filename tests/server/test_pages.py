"""The pages in a real Chromium without JavaScript: what people see, and that they get around."""

from __future__ import annotations

import html
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modhub.files import sha256_of_bytes
from modhub.manifest import ModuleManifest
from modhub.server.http.state import Options
from tests.support.hub_server import TOKENS, Server, serving
from tests.support.hub_world import push, repository_files

CAT = "modules/cat/module.json"
DIGITS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("hub")
    push(root, "lab/resnet20-cifar10", DIGITS)
    push(root, "zoo/big-cats", ("cat", "puma", "lynx"), seed=1)
    push(root, "lab/secret-cats", ("cat",), private=True, seed=2)
    with serving(root) as server:
        yield server


def test_every_page_leads_on_below_the_path_of_a_public_address(tmp_path: Path) -> None:
    push(tmp_path, "lab/net", ("cat", "dog"))
    with serving(tmp_path, Options(public_url="https://host/hub/")) as server:
        form = f"token={TOKENS['reader']}".encode()
        entered = server.ask("POST", "/login", body=form, headers={"Origin": "https://host"})
        assert (entered.status, entered.headers["location"]) == (303, "/hub/")
        cookie = entered.headers["set-cookie"]
        assert "; Path=/hub;" in cookie
        left = server.ask("POST", "/logout", headers={"Cookie": cookie})
        assert left.headers["location"] == "/hub/"
        assert "; Path=/hub;" in left.headers["set-cookie"]
        waiting, seen = ["/hub/", "/hub/nothing", "/hub/login", "/hub/compose?q=cat"], set[str]()
        while waiting:
            asked = waiting.pop()
            seen.add(asked)
            # What the proxy does.
            answer = server.ask("GET", asked.removeprefix("/hub"), headers={"Accept": "text/html, */*"})
            assert (answer.status == 200) != (asked in ("/hub/nothing", "/hub/logout")), asked
            if not answer.headers["content-type"].startswith("text/html"):
                continue
            for found in re.findall(r'(?:href|src|action)="([^"#][^"]*)"', answer.body.decode()):
                assert found.startswith("/hub/"), (asked, found)
                address = html.unescape(found)
                if address not in seen and address not in waiting:
                    waiting.append(address)
        assert any(address.startswith("/hub/static/style.css?v=") for address in seen)
        assert {"/hub/lab/net", "/hub/lab/net/tree/main", "/hub/healthz"} <= seen
        assert any(address.startswith("/hub/compose/modhub.toml?pick=") for address in seen)


def see(browser: Any, server: Server, path: str, shot: str = "") -> str:
    """Open a page; its text. With MODHUB_SCREENSHOTS a picture of it is kept there."""
    browser.get(server.address + path)
    folder = os.environ.get("MODHUB_SCREENSHOTS")
    if folder and shot:
        browser.save_screenshot(str(Path(folder) / f"{shot}.png"))
    complaints = [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE" and "status of 4" not in entry["message"]
    ]
    assert complaints == []
    return str(browser.find_element("tag name", "body").text)


def main_after(browser: Any, action: Callable[[], None]) -> str:
    """What the page says to which `action` (a click, a form) leads."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.wait import WebDriverWait

    # A mark on the page that is left, and not a question to one of its nodes: the driver answers that with an
    # error of its own while the page goes.
    browser.execute_script("window.left = true")
    action()
    arrived = "return window.left === undefined && document.readyState === 'complete'"
    WebDriverWait(browser, 20, ignored_exceptions=[WebDriverException]).until(
        lambda each: each.execute_script(arrived)
    )
    return str(browser.find_element("tag name", "main").text)


def test_the_front_page_searches_and_narrows(server: Server, browser: Any) -> None:
    text = see(browser, server, "/", "front")
    assert "lab/resnet20-cifar10" in text
    assert "secret" not in text
    text = main_after(browser, browser.find_element("link text", "puma").click)
    assert browser.current_url.endswith("class=puma")
    assert "zoo/big-cats" in text
    assert "lab/" not in text
    field = browser.find_element("id", "quick")
    field.clear()
    field.send_keys("resnet20")
    assert "lab/resnet20-cifar10" in main_after(browser, field.submit)
    assert "No repositories match" in see(browser, server, "/?q=zzz")


def test_a_repository_and_its_files(server: Server, browser: Any) -> None:
    text = see(browser, server, "/lab/resnet20-cifar10", "repository")
    for words in ("10 modules", "airplane", "95.0 %", "1.0.0", "modhub pull lab/resnet20-cifar10"):
        assert words in text
    assert "modhub.json" in main_after(browser, browser.find_element("link text", "Files").click)
    assert "airplane/" in main_after(browser, browser.find_element("link text", "modules/").click)
    assert "Release 1.0.0" in see(browser, server, "/lab/resnet20-cifar10/commits/main", "history")


def test_a_module_is_shown_in_pictures(server: Server, browser: Any) -> None:
    text = see(browser, server, "/lab/resnet20-cifar10/modules/cat", "module")
    assert "Kept channels" in text
    pictures = browser.find_elements("css selector", "svg.picture")
    labels = [picture.get_attribute("aria-label") for picture in pictures]
    assert len(labels) == 3
    assert labels[0].endswith("channels kept (54.7 %)") or "of 600 channels kept" in labels[0]
    assert labels[1] == "Shared channels of 10 modules"
    assert labels[2].startswith("Calibration: probability one half at margin 0.714")
    assert len(browser.find_elements("css selector", "svg.overlap rect.share")) == 100
    assert 'modhub.compose(["lab/resnet20-cifar10/cat"]' in text


def test_composing_in_the_browser(server: Server, browser: Any) -> None:
    see(browser, server, "/compose")
    field = browser.find_element("id", "q")
    field.send_keys("cat")
    text = main_after(browser, field.submit)
    assert "secret" not in text
    # In the order of what they reach at the least, with all there is to choose by.
    assert text.index("zoo/big-cats/cat") < text.index("lab/resnet20-cifar10/cat")
    row = browser.find_element("xpath", "//tr[th/a='zoo/big-cats/cat']").text
    for words in ("1.0.0", "95.0 %", "cifar10 test, 100 + 900", "mit"):
        assert words in row
    sizes = ModuleManifest.from_bytes(repository_files("zoo/big-cats", ("cat",), seed=1)[CAT]).sizes
    assert row.count(f"{100 * sizes.flops / sizes.parent_flops:.1f} %") == 2, (
        "of multiply-adds, of parameters"
    )
    main_after(browser, browser.find_element("css selector", "[aria-label='Pick zoo/big-cats/cat']").click)
    field = browser.find_element("id", "ref")
    field.send_keys("lab/resnet20-cifar10/dog>=1")
    main_after(browser, field.submit)
    text = see(browser, server, browser.current_url.removeprefix(server.address), "compose")
    assert "Resolution" in text
    assert "Forward passes per image\n2" in text
    assert " of its parents’ 81.6 M" in text
    assert f"modhub compose modhub.toml -o build --hub {server.address}\nmodhub predict build IMAGE" in text
    link = browser.find_element("link text", "Download").get_attribute("href")
    toml = server.ask("GET", link.removeprefix(server.address)).body.decode()
    assert tomllib.loads(toml)["modules"] == {
        "cat": "zoo/big-cats/cat",
        "dog": "lab/resnet20-cifar10/dog>=1",
    }
    shared = see(browser, server, "/compose?pick=zoo/big-cats/puma&q=cat", "compose-found")
    assert "zoo/big-cats/cat 1.0.0 shares a trunk" in shared
    assert shared.count("shares a trunk") == 1
    text = see(browser, server, "/compose?pick=lab/resnet20-cifar10/dog%3E=9", "compose-no")
    assert "Cannot resolve" in text


def test_logging_in_shows_what_was_hidden(server: Server, browser: Any) -> None:
    assert "Repository not found" in see(browser, server, "/lab/secret-cats")
    see(browser, server, "/login", "login")
    field = browser.find_element("id", "token")
    field.send_keys("reader-token-0123456789")
    assert "lab/secret-cats" in main_after(browser, field.submit)
    assert "1 module" in see(browser, server, "/lab/secret-cats")
    leave = browser.find_element("xpath", "//button[text()='Log out']")
    assert "secret" not in main_after(browser, leave.click)


@pytest.fixture(scope="module")
def odd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Names and labels as long as they may be."""
    root = tmp_path_factory.mktemp("odd")
    push(root, f"{'n' * 96}/{'m' * 96}", ("x" * 190, "cat", *(f"long label {one}" for one in range(24))))
    with serving(root) as server:
        yield server


def test_no_page_is_wider_than_the_smallest_screen(odd_server: Server, browser: Any) -> None:
    home = f"/{'n' * 96}/{'m' * 96}"
    trunk = sha256_of_bytes(repository_files("any/name", ("cat",))["trunk/weights.safetensors"])
    try:
        # 640 pixels at 200 % are 320.
        for width in (320, 390, 768):
            screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            for path in (
                "/",
                "/login",
                "/compose?q=cat",
                f"/compose?pick={home[1:]}/cat&q=cat",
                home,
                f"{home}?revision=v9",
                f"{home}/modules/{'x' * 96}",
                f"{home}/tree/main/modules",
                f"{home}/commits/main",
                f"/trunks/{trunk}",
            ):
                see(browser, odd_server, path)
                wide = browser.execute_script("return document.documentElement.scrollWidth")
                assert wide <= width, (path, width)
        # The picture scrolls rather than shrink until nobody can read it.
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": True},
        )
        see(browser, odd_server, f"{home}/modules/cat")
        script = (
            "const m = document.querySelector('svg.overlap text').getScreenCTM(); return Math.hypot(m.a, m.b)"
        )
        assert browser.execute_script(script) > 0.99
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_keyboard_gets_everywhere_and_sees_where_it_is(server: Server, browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    active = """const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
        return [e.tagName, e.textContent.trim() || e.id, s.outlineStyle, r.right > 0 && r.bottom > 0]"""
    for path in ("/", "/lab/resnet20-cifar10", "/compose?pick=zoo/big-cats/cat&q=cat"):
        see(browser, server, path)
        stops = []
        for _ in range(150):
            browser.switch_to.active_element.send_keys(Keys.TAB)
            tag, words, outline, seen = browser.execute_script(active)
            if tag == "BODY":
                break
            stops.append(words)
            assert outline != "none", (path, tag, words)
            assert seen, (path, tag, words)
        else:
            pytest.fail(f"the keyboard never leaves {path}")
        fields = "a[href], button, input:not([type=hidden]), select, summary, [tabindex='0']"
        assert len(stops) == len(browser.find_elements("css selector", fields)), path
        assert stops[0] == "Skip to content"
    see(browser, server, "/")
    browser.switch_to.active_element.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    browser.switch_to.active_element.send_keys(Keys.TAB)
    # Past the header, into the page.
    assert browser.execute_script("return !!document.activeElement.closest('main')")


def test_fields_stand_out_from_the_ground_in_both_schemes(server: Server, browser: Any) -> None:
    ratio = """const light = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
        const ground = e => { const c = getComputedStyle(e).backgroundColor;
            return c === 'rgba(0, 0, 0, 0)' ? ground(e.parentElement) : c };
        return [...document.querySelectorAll('input:not([type=hidden]), select')].map(e => {
            const [a, b] = [light(getComputedStyle(e).borderTopColor), light(ground(e.parentElement))];
            return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) })"""
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        for path in ("/", "/compose", "/login"):
            see(browser, server, path)
            ratios = browser.execute_script(ratio)
            # What WCAG 2.2 asks for (1.4.11).
            assert min(ratios) >= 3, (scheme, path, ratios)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_work_on_a_phone_and_in_both_schemes(server: Server, browser: Any, scheme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    phone = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        for path, shot in (
            ("/", "front"),
            ("/lab/resnet20-cifar10", "repository"),
            ("/lab/resnet20-cifar10/modules/cat", "module"),
            ("/compose?pick=zoo/big-cats/cat&q=dog", "compose"),
        ):
            see(browser, server, path, f"phone-{scheme}-{shot}")
            root = browser.find_element("tag name", "html")
            assert root.size["width"] <= 375
            size = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            assert size["width"] <= 375, path
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_pages_are_named_for_those_who_cannot_see_them(server: Server, browser: Any) -> None:
    for path in ("/", "/lab/resnet20-cifar10", "/lab/resnet20-cifar10/modules/cat", "/compose", "/login"):
        see(browser, server, path)
        assert browser.find_element("tag name", "html").get_attribute("lang") == "en"
        assert len(browser.find_elements("tag name", "h1")) == 1
        assert len(browser.find_elements("css selector", "main#content")) == 1
        for field in browser.find_elements("css selector", "input:not([type=hidden]), select"):
            assert field.accessible_name, field.get_attribute("outerHTML")
        for link in browser.find_elements("css selector", "a, button"):
            assert link.accessible_name, link.get_attribute("outerHTML")
        for cell in browser.find_elements("css selector", "th"):
            assert cell.get_attribute("scope") in ("row", "col") or cell.find_elements(
                "xpath", "ancestor::*[@class='card']"
            )
