"""The page in a browser without a network: its figures against the ledger, its charts drawn, readable on a phone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shoestring import report
from shoestring.recipe import ledger
from shoestring.report.figures import COLUMNS, pair
from tests.report.example_run import write_composition, write_run

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("browser") / "runs" / "quickstart")
    write_composition(folder)
    report.write(folder)
    return folder


def open_page(browser: Any, file: Path, width: int, scheme: str = "light") -> tuple[Any, list[str]]:
    """The page after its charts are drawn, and everything that went wrong or went out."""
    context = browser.new_context(offline=True, viewport={"width": width, "height": 844}, color_scheme=scheme)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("request", lambda request: wrong.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    until(page, "[...document.querySelectorAll('.chart')].every(chart => chart.querySelector('.main-svg'))")
    return page, wrong


def until(page: Any, expression: str, seconds: float = 20) -> None:
    """Wait until an expression holds; the page's own policy forbids the eval inside Playwright's wait_for_function."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never came true: {expression}"
        page.wait_for_timeout(50)


def test_the_figures_in_the_browser_are_the_ledgers(browser: Any, run: Path) -> None:
    page, wrong = open_page(browser, run / "report.html", 1320)
    shown = page.eval_on_selector_all(
        "table.ledger [data-side]", "all => all.map(e => [e.dataset.step, e.dataset.figure, e.dataset.side, e.dataset.value])"
    )
    found = {(step, figure, side): value for step, figure, side, value in shown}
    for row in ledger.read(run / "ledger.jsonl"):
        for figure in COLUMNS:
            for side, quantity in zip(("predicted", "measured"), pair(row, figure)):
                value = found[row.step, figure, side]
                assert (float(value) if value else None) == quantity.value, (row.step, figure, side)
    assert page.title() == "quickstart · Shoestring report"
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator(".chart .main-svg").count() >= 5
    assert wrong == []


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off_on_a_phone_or_a_small_screen(browser: Any, run: Path, width: int) -> None:
    page, wrong = open_page(browser, run / "report.html", width, "dark")
    widths = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, window.innerWidth]")
    assert widths == [width, width, width]
    # Nothing sticks out of its own box either: the recipe's text alone may be scrolled.
    outside = page.evaluate(
        """() => [...document.querySelectorAll('main *, header *, footer *')]
            .filter(e => !e.closest('#recipe pre, .chart, .unseen, thead') && e.getBoundingClientRect().right > innerWidth + 1)
            .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert outside == []
    scrolled = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)"
    assert page.evaluate(scrolled) == []
    shown = page.locator("#model-path").evaluate("e => e.scrollWidth <= e.clientWidth")
    assert shown
    assert wrong == []


def test_the_cost_can_be_chosen_and_dark_recolours_the_charts(browser: Any, run: Path) -> None:
    page, wrong = open_page(browser, run / "report.html", 1000)
    axis = "document.querySelector('#chart-cost .xtitle').textContent"
    assert "time" in page.evaluate(axis)
    page.get_by_label("Energy").check()
    until(page, f"{axis}.includes('energy')")
    before = page.evaluate("document.querySelector('#chart-loss-learning .xtitle').style.fill")
    page.emulate_media(color_scheme="dark")
    until(page, f"document.querySelector('#chart-loss-learning .xtitle').style.fill !== '{before}'")
    assert wrong == []


def test_text_has_contrast_and_tables_have_headers(browser: Any, run: Path) -> None:
    page, _ = open_page(browser, run / "report.html", 1000)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ratios = page.evaluate(
            """() => {
                const style = getComputedStyle(document.documentElement);
                const light = (name) => {
                    const hex = style.getPropertyValue(name).trim().slice(1);
                    const part = (n) => { const c = parseInt(hex.slice(n, n + 2), 16) / 255;
                        return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
                    return 0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4);
                };
                const names = ["--ink", "--soft", "--accent", "--string", "--good", "--warn", "--bad"];
                return names.flatMap((name) => ["--ground", "--raised"].map((ground) => {
                    const pair = [light(name), light(ground)].sort((a, b) => b - a);
                    return [name + " on " + ground, (pair[0] + 0.05) / (pair[1] + 0.05)];
                }));
            }"""
        )
        assert all(ratio >= 4.5 for _, ratio in ratios), [entry for entry in ratios if entry[1] < 4.5]
        bare = page.evaluate(
            "[...document.querySelectorAll('table')].filter(t => !t.querySelector('thead th[scope=col]') || !t.caption).length"
        )
        assert bare == 0


def test_every_chart_can_be_opened_without_a_run(browser: Any, tmp_path: Path) -> None:
    page, wrong = open_page(browser, report.write(write_composition(tmp_path / "compose")), 390)
    assert page.locator(".chart").count() == 1
    assert wrong == []
