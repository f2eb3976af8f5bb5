"""The explorer in a real browser: steps, clicks, keys, bugs, what it shows, and that it asks for nothing.

It takes Playwright and a Chromium; without them these tests are skipped, unless NNPROFILE_BROWSER=required.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnprofile as nn
from nnprofile.tracing.presets import PRESETS

from .equalities import compute, holds

CHROMIUM = os.environ.get("NNPROFILE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "no Playwright" if importlib.util.find_spec("playwright") is None else "" if CHROMIUM else "no Chromium"
if MISSING and os.environ.get("NNPROFILE_BROWSER") == "required":
    raise RuntimeError(f"browser tests are required, but there is {MISSING}")
if MISSING:
    pytest.skip(f"there is {MISSING}: the explorer is not tested in a browser", allow_module_level=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    out = {}
    with np.errstate(all="raise", under="ignore"):
        for key, preset in PRESETS.items():
            out[key] = folder / f"{key}.html"
            preset.trace().to_html(out[key], preset=preset)
        rng = np.random.default_rng(0)
        net = nn.Sequential([nn.Dense(40, 30), nn.ReLU(), nn.Dense(30, 12)], rng=rng)
        x, y = rng.normal(size=(20, 40)), rng.integers(0, 12, 20)
        out["large"] = folder / "large.html"
        nn.trace(net, nn.SoftmaxCrossEntropy(), x, y, nn.Adam(), 0.1).to_html(out["large"], n_steps=2)
        net = nn.Sequential([nn.Dense(2, 4), nn.ReLU(), nn.Dense(4, 1)], rng=rng)
        x, y = rng.normal(size=(5, 2)), rng.normal(size=5)
        with np.errstate(all="ignore"):
            out["diverging"] = folder / "diverging.html"
            nn.trace(net, nn.HalfSquaredError(), x, y, nn.SGD(1e60)).to_html(out["diverging"])
            net.params["0.W"][1, 1] = np.nan
            out["nan"] = folder / "nan.html"
            nn.trace(net, nn.HalfSquaredError(), x, y, nn.SGD(0.1)).to_html(out["nan"])
    return out


@pytest.fixture
def visit(browser: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """Open a page; afterwards there must have been no message on the console, and no request but for the file."""
    contexts, trouble, requests = [], [], []

    def open_page(key: str, **options: Any) -> Any:
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(pages[key].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not trouble
    assert all(url.startswith("file://") and url.endswith(".html") for url in requests)


def where(page: Any) -> str:
    return str(page.inner_text("#where"))


def to_step(page: Any, title: str) -> None:
    for _ in range(30):
        if title in page.inner_text("#step h2"):
            return
        page.click("#next")
    raise AssertionError(f"no step is called {title}")


def test_buttons_slider_and_play(visit: Any) -> None:
    page = visit("mazur")
    assert where(page) == "Step 0 of 13" and page.get_attribute("#back", "aria-disabled") == "true"
    page.click("#next")
    assert where(page) == "Step 1 of 13" and "Forward: Dense layer 1" in page.inner_text("#step h2")
    page.fill("#slider", "6")
    assert "start at the loss" in page.inner_text("#step h2")
    assert page.get_attribute("#slider", "aria-valuetext") == "step 6 of 13: Backward: start at the loss"
    page.click("#play")
    assert page.inner_text("#play") == "Pause"
    page.wait_for_selector("#where:text('Step 7 of 13')")
    page.click("#play")
    assert page.inner_text("#play") == "Play" and where(page) == "Step 7 of 13"


def test_keyboard_alone(visit: Any) -> None:
    page = visit("document")
    for key, step in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 13), ("Home", 0)):
        page.keyboard.press(key)
        assert where(page) == f"Step {step} of 13"
    page.keyboard.press("ArrowRight")
    reached = set()
    for _ in range(40):  # by Tab into the tables: one stop a table
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.cell || document.activeElement.id || ''"))
        if page.evaluate("(document.activeElement.dataset.cell || '').startsWith('W1')"):
            break
    assert {"next", "slider", "bug", "digits"} <= reached
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.cell") == "W1:1,1"
    page.keyboard.press("Enter")
    assert page.inner_text("#detail h2").startswith("W₁[1,1]")
    assert page.evaluate("document.activeElement.dataset.cell") == "W1:1,1", "focus stays on the chosen cell"
    assert where(page) == "Step 1 of 13", "arrows in a table do not move the step"


@pytest.mark.parametrize("key", list(PRESETS))
def test_every_equality_that_it_displays_holds(visit: Any, key: str) -> None:
    """Click through every step and every cell, right and with each bug, and recompute what the page then says."""
    page = visit(key)
    page.select_option("#digits", "17")
    bugs = page.eval_on_selector_all("#bug option", "options => options.map((option) => option.value)")
    lines: set[str] = set()
    for bug in bugs:
        page.select_option("#bug", bug)
        lines |= set(
            page.evaluate(
                """() => {
                  const out = [], slider = document.getElementById("slider");
                  for (let step = 0; step <= Number(slider.max); step++) {
                    slider.value = step;
                    slider.dispatchEvent(new Event("input"));
                    const keys = [...document.querySelectorAll("#step .results [data-cell]")].map((cell) => cell.dataset.cell);
                    for (const key of keys) {
                      document.querySelector(`[data-cell="${key}"]`).click();
                      out.push(document.getElementById("equality").textContent);
                      for (const row of document.querySelectorAll("tr.way")) {
                        out.push("way = " + row.cells[2].textContent + " = " + row.cells[3].textContent);
                      }
                    }
                  }
                  return out;
                }"""
            )
        )
    checked = 0
    for line in lines:
        _, *middle, value = line.replace(" · ", "·").split(" = ")
        for text in middle:
            assert holds(text, compute(value).value), line
            checked += 1
    assert checked > 150


def test_a_weight_in_the_picture_shows_all_its_ways(visit: Any) -> None:
    page = visit("document")
    to_step(page, "Backward: Dense layer 1")
    page.dispatch_event('[data-edge="W1:0,2"]', "click")  # lines cross, so the middle of one may belong to another
    assert page.inner_text("#detail h2 >> nth=0").startswith("dW₁[0,2]")
    assert page.locator("tr.way").count() == 2
    total, gradient = page.inner_text("#waysum").split(", ")
    assert total == gradient
    assert page.locator("path.onpath").count() == 2
    terms = [compute(cell).value for cell in page.locator("tr.way td.number").all_inner_texts()]
    assert sum(terms) == pytest.approx(compute(total).value, rel=1e-5)


def test_break_it(visit: Any) -> None:
    page = visit("mazur")
    assert page.locator("#gradients .bad").count() == 0
    page.select_option("#bug", "updated-weights")
    assert "The first wrong one, on the way back, is da₁" in page.inner_text("#summary")
    assert page.inner_text("#detail h2 >> nth=0").startswith("da₁[0,0]"), "the page goes to the first wrong one"
    assert page.is_visible("#story") and "Mazur" in page.inner_text("#story")
    to_step(page, "Backward: Dense layer 2")
    assert page.locator('#step td.wrong [data-cell^="da1"]').count() == 2
    assert page.locator('#step td.wrong [data-cell^="dW2"]').count() == 0
    page.click('[data-cell="da1:0,0"]')
    assert "✗ by the complex step: 0.0363503" in page.inner_text("#verdict")
    assert "Without the bug it is 0.0363503" in page.inner_text("#detail")
    assert "0.291027924 with the bug, and 0.291027774 without" in page.inner_text("#onestep")
    assert page.locator("polyline.broken").count() == 1
    page.select_option("#bug", "")
    assert page.locator("td.wrong").count() == 0 and page.is_hidden("#story")
    assert "0.291027774" in page.inner_text("#onestep")


def test_printed_numbers(visit: Any) -> None:
    page = visit("mazur")
    text = page.inner_text("#printed")
    assert "0.291027924" in text and "0.29102777369359933" in text and text.count("✗") == 4 and text.count("✓") == 22
    assert page.locator("#printed").is_visible() and not visit("xor").locator("#printed").is_visible()


def test_rows_of_a_batch(visit: Any) -> None:
    page = visit("xor")
    assert page.is_visible("#row") and page.is_hidden("#story")
    page.click("#next")
    page.select_option("#row", "2")
    assert page.inner_text("#equality").startswith("z₁[2,0] = 1·0.8 + 0·(−0.6) + 0.1 = 0.9")
    assert visit("mazur").is_hidden("#row")


def test_a_large_network(visit: Any) -> None:
    page = visit("large")
    assert "10 of 40" in page.inner_text("#net") and "more than 256 elements" in page.inner_text("#cap")
    to_step(page, "Backward: Dense layer 1")
    assert "1200 elements: shown in blocks" in page.inner_text("#step")
    page.click('#step [data-quantity="dW1"] [data-cell] >> nth=5')
    _, text, value = page.inner_text("#equality").split(" = ")
    assert "more: " in text and holds(text, compute(value).value, 6)
    assert "too many to list" in page.inner_text("#detail")
    for bug in page.eval_on_selector_all("#bug option", "options => options.map((option) => option.value)"):
        page.select_option("#bug", bug)
        text = page.inner_text("body")
        assert "undefined" not in text and "NaN" not in text and "Infinity" not in text, bug
        assert ("✗" in page.inner_text("#gradients")) == bool(bug)


def test_numbers_that_are_not_finite(visit: Any) -> None:
    page = visit("diverging")
    for bug in page.eval_on_selector_all("#bug option", "options => options.map((option) => option.value)"):
        page.select_option("#bug", bug)
        text = page.inner_text("#training")
        assert "numbers that are not finite, at step" in text and "undefined" not in text
        assert "NaN" not in (page.get_attribute("polyline.right", "points") or "")
    page = visit("nan")
    assert "UNCLEAR" in page.inner_text("#summary") and page.is_hidden("#training")
    to_step(page, "Backward: Dense layer 1")
    assert "undefined" not in page.inner_text("body")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_fits_and_has_contrast(visit: Any, scheme: str, width: int) -> None:
    page = visit("xor", viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.select_option("#bug", "sign")
    to_step(page, "Backward: Dense layer 1")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    for selector in ("body", "#summary", ".shape", "td.wrong button", "#story", ".label"):
        ratio = page.eval_on_selector(selector, _CONTRAST)
        assert ratio >= 4.5, (selector, ratio)


_CONTRAST = """node => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = (rgb) => rgb.slice(0, 3).map((c) => linear(c / 255))
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  let back = node;
  while (back && (numbers(getComputedStyle(back).backgroundColor)[3] === 0)) back = back.parentElement;
  const style = getComputedStyle(node), ink = node instanceof SVGElement ? style.fill : style.color;
  const a = luminance(numbers(ink)), b = luminance(numbers(getComputedStyle(back || document.body).backgroundColor));
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""


def test_for_a_screen_reader(visit: Any) -> None:
    page = visit("xor")
    page.select_option("#bug", "sign")
    to_step(page, "Backward: Dense layer 1")
    assert page.get_attribute("html", "lang") == "en"
    for control in page.query_selector_all("button, select, input"):
        name = control.evaluate(
            "n => n.getAttribute('aria-label') || n.textContent.trim() || (n.labels && n.labels.length)"
        )
        assert name, control.evaluate("n => n.outerHTML")
    assert re.search(r"dW₁\[0,0\] = −0\.04\d+, wrong", page.get_attribute('[data-cell="dW1:0,0"]', "aria-label"))
    page.click('[data-cell="dW1:0,0"]')
    assert page.get_attribute("#live", "aria-live") == "polite"
    assert re.match(r"Step 8: Backward: Dense layer 1. dW₁\[0,0\] = .*✗ by the complex step", page.inner_text("#live"))
    assert page.locator("[aria-live]").count() == 1, "one thing is read out, not every table"
    assert page.locator("#training svg").get_attribute("aria-label").startswith("The loss over 200 steps")


def test_printing(visit: Any) -> None:
    page = visit("mazur")
    page.emulate_media(media="print")
    assert page.is_hidden("#next") and page.is_visible("#step")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.is_visible("#text pre") and "dW₂[0,0] = 0.59327·0.138499" in page.inner_text("#text pre")


def test_without_scripts_the_text_is_there(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["mazur"].as_uri())
    page.click("#text summary")
    assert page.is_visible("#text pre") and "needs JavaScript" in page.inner_text("noscript")
    context.close()


class MySigmoid(nn.Layer):
    """A reader's own layer, with a slip in its backward."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        y = 1 / (1 + np.exp(-x))
        return y, y

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy * cache * (1 + cache), nn.Parameters({})


class Rolled(nn.Layer):
    """A right layer that mixes elements."""

    def forward(self, x: Any, rng: Any = None) -> Any:
        return np.roll(x, 1, axis=1), None

    def backward(self, dy: Any, cache: Any) -> Any:
        return np.roll(dy, -1, axis=1), nn.Parameters({})


class MyDense(nn.Layer):
    """A dense layer of a reader's own, with one element of dW wrong."""

    def __init__(self, n_in: int, n_out: int) -> None:
        self.params = nn.Parameters({"W": (n_in, n_out)}, np.linspace(-1, 1, n_in * n_out))

    def forward(self, x: Any, rng: Any = None) -> Any:
        return x @ self.params["W"], x

    def backward(self, dy: Any, cache: Any) -> Any:
        grads = self.params.like()
        grads["W"] = cache.T @ dy
        grads["W"][1, 2] *= 1.01
        return dy @ self.params["W"].T, grads


@pytest.fixture(scope="module")
def own(pages: dict[str, Path]) -> None:
    """Add the pages of a reader's own layers."""
    for key, layer in (("wrong layer", MySigmoid()), ("mixing layer", Rolled())):
        net = nn.Sequential([nn.Dense(2, 3), layer, nn.Dense(3, 1)], rng=np.random.default_rng(0))
        trace = nn.trace(net, nn.SigmoidCrossEntropy(), [[0, 1], [1, 1]], [1, 0], nn.SGD(0.5))
        pages[key] = pages["xor"].parent / f"{key}.html"
        trace.to_html(pages[key], title=f"My {key}, <homework>", n_steps=20)
    net = nn.Sequential([MyDense(2, 3), nn.Tanh(), nn.Dense(3, 1)], rng=np.random.default_rng(0))
    pages["own dense"] = pages["xor"].parent / "own dense.html"
    nn.trace(net, nn.SigmoidCrossEntropy(), [[0, 1], [1, 1]], [1, 0]).to_html(pages["own dense"])


COLOR = """(node) => {
  const probe = document.createElement("i"), names = ["--ok", "--bad"];
  document.body.append(probe);
  const found = names.map((name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; });
  probe.remove();
  return ["ok", "bad"][found.indexOf(getComputedStyle(node)[node instanceof SVGElement ? "stroke" : "color"])] || "neither";
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("key", ["xor", "mazur", "wrong layer"])
def test_wrong_is_red_and_right_is_green(visit: Any, own: None, key: str, scheme: str) -> None:
    page = visit(key, color_scheme=scheme)
    right = key != "wrong layer"
    assert page.eval_on_selector("#summary", COLOR) == ("ok" if right else "bad")
    assert page.eval_on_selector("#training polyline", COLOR) == ("ok" if right else "bad")
    for bug in page.eval_on_selector_all("#bug option", "options => options.map((option) => option.value)")[1:]:
        page.select_option("#bug", bug)
        assert page.inner_text("#summary").startswith("WRONG") and page.eval_on_selector("#summary", COLOR) == "bad"
        assert page.eval_on_selector("#verdict", COLOR) == "bad"
        assert page.eval_on_selector("td.wrong button", COLOR) == "bad"
        assert page.eval_on_selector("polyline.broken", COLOR) == "bad"
    for cell in page.query_selector_all("#gradients tbody td:nth-child(2)"):
        assert cell.evaluate(COLOR) == ("ok" if cell.inner_text().startswith("✓") else "bad")


def test_a_wrong_layer_of_the_readers_own(visit: Any, own: None) -> None:
    page = visit("wrong layer")
    assert page.inner_text("h1") == "My wrong layer, <homework>" == page.title()
    assert page.inner_text("#bug option:checked") == "no bug added"
    assert "7. Backward: MySigmoid" in page.inner_text("#step h2"), "it opens at the first wrong gradient"
    assert page.inner_text("#detail h2 >> nth=0").startswith("dz₁[0,0]") and "WRONG" in page.inner_text("#verdict")
    assert page.is_visible("#diagnosis") and "the derivative of the activation is wrong" in page.inner_text(
        "#diagnosis"
    )
    assert page.text_content("#training .key") == "solid: this network, with its wrong gradients"
    assert page.locator("polyline.right").count() == 0
    to_step(page, "Backward: Dense layer 1")
    page.click('#step [data-cell="dW1:1,0"]')
    assert "by the local derivatives of the forward pass" in page.inner_text("#detail h2 >> nth=1")
    total, gradient = page.inner_text("#waysum").split(", ")
    reference = re.search(r"complex step: (\S+);", page.inner_text("#verdict"))
    assert reference is not None and compute(total).value == pytest.approx(compute(reference[1]).value, rel=1e-5)
    assert total != gradient, "the paths give the right gradient, not the wrong one"


def test_a_layer_that_mixes_elements_says_why_there_are_no_paths(visit: Any, own: None) -> None:
    page = visit("mixing layer")
    assert page.is_hidden("#diagnosis") and page.inner_text("#bug option:checked") == "nothing: all is right"
    page.dispatch_event('[data-edge="W1:0,2"]', "click")
    assert page.inner_text("#detail h2 >> nth=1") == "The paths from W₁[0,2] to the loss"
    assert "The paths from W₁ lead through the layer from z₁ to a₁, which mixes elements" in page.inner_text("#detail")


def test_titles_stand_for_themselves(visit: Any, pages: dict[str, Path]) -> None:
    for key in PRESETS:
        page = visit(key)
        for words in (page.inner_text("header"), *page.locator("#bug option").all_inner_texts()):
            assert "the document" not in words.lower(), words


def test_a_right_element_of_a_wrong_gradient_is_right(visit: Any, own: None) -> None:
    page = visit("own dense")
    assert page.inner_text("#detail h2 >> nth=0").startswith("dW₁[1,2]") and page.inner_text("#verdict").startswith("✗")
    page.click('#step [data-cell="dW1:0,0"]')
    assert page.inner_text("#verdict").startswith("✓") and page.eval_on_selector("#verdict", COLOR) == "ok"
    assert page.locator("#net circle").count() == 2 + 3 + 1, "a column for each layer with parameters"
    assert {
        edge.partition(":")[0]
        for edge in page.eval_on_selector_all("[data-edge]", "all => all.map((e) => e.dataset.edge)")
    } == {"W2"}
    assert page.locator('[data-edge^="W2"]').count() == 3
