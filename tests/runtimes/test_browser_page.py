"""docs/browser in a real Chromium, with the real onnxruntime-web, beside what `modhub predict` says."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modhub.api.predict import predict
from modhub.composition import compose, parts_of
from modhub.runtimes.export import export_classifier
from tests.support.chromium import chromium
from tests.support.digit_parents import digit_modules, digits, pixels_of

PAGE = Path(__file__).parents[2] / "docs" / "browser"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """The address of the page, with the runtime that its README installs."""
    runtime = PAGE / "node_modules"
    if not (runtime / "onnxruntime-web").is_dir():
        pytest.skip("no onnxruntime-web: npm install onnxruntime-web in docs/browser")
    site = tmp_path / "site"
    shutil.copytree(PAGE, site, ignore=shutil.ignore_patterns("node_modules"))
    (site / "node_modules").symlink_to(runtime.resolve())
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("reject", [True, False])
def test_the_page_answers_as_predict_does(reject: bool, page: str, tmp_path: Path) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    classifier = compose(parts_of(digit_modules(), ["3", "5"]), reject=reject)
    images, _ = pixels_of(digits("0123456789", "test"))
    model = tmp_path / "model.onnx"
    export_classifier(classifier, classifier.labels, model, format="onnx", images=images[:16])
    for number, image in enumerate(images[:12]):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{number:02}.png")
    said = predict(model, sorted(tmp_path.glob("*.png")))["images"]
    assert {entry["label"] is None for entry in said} == {reject, False}
    with chromium(javascript=True) as browser:
        browser.get(page)

        def text(identity: str) -> str:
            return str(browser.find_element("id", identity).text)

        browser.find_element("id", "model").send_keys(str(model))
        WebDriverWait(browser, 60).until(lambda _: text("status") == "2 classes: 3, 5")
        for entry in said:
            browser.execute_script("document.getElementById('status').textContent = ''")
            browser.find_element("id", "image").send_keys(entry["path"])
            WebDriverWait(browser, 60).until(lambda _: text("status"))
            label = "none of these" if entry["label"] is None else entry["label"]
            assert text("status").startswith(f"{label} (")
            for name, chance in entry["probabilities"].items():
                assert f"{name} {100 * chance:.1f} %" in text("scores").splitlines()
        assert [entry for entry in browser.get_log("browser") if "favicon" not in entry["message"]] == []
