"""The chat page in a headless Chromium: typing, streaming, stopping, errors, a phone's width."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture(params=[(1200, 800), (390, 780)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, server: str) -> Iterator[Any]:
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height})
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.goto(server)
    opened.wait_for_function("document.getElementById('model').textContent === 'tiny'")
    yield opened
    opened.close()
    assert not [problem for problem in problems if "400" not in problem], problems


def shoot(page: Any, name: str) -> None:
    """Keep a picture when a folder for pictures is named."""
    if folder := os.environ.get("SHOESTRING_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}-{page.viewport_size['width']}.png")


def test_a_conversation_by_keyboard(page: Any) -> None:
    page.keyboard.type("Hello there")  # the field has the focus from the start
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    page.keyboard.press("Enter")
    answer = page.locator("article.assistant:not(.busy)")
    answer.wait_for(timeout=20_000)
    assert page.locator("article.user p").inner_text() == "Hello there\nsecond line"
    assert answer.locator("p").inner_text()
    assert "tokens/s" in answer.locator("small").inner_text()
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("And again")
    page.keyboard.press("Enter")
    page.locator("article.assistant:not(.busy)").nth(1).wait_for(timeout=20_000)
    shoot(page, "conversation")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page is wider than the screen"
    page.click("#fresh")
    assert page.locator("article").count() == 0


def test_an_answer_can_be_stopped(page: Any) -> None:
    page.click("summary")
    page.fill("#temperature", "0")
    page.fill("#max_tokens", "3900")
    page.fill("#text", "Never stop")
    page.click("#send")
    page.locator("article.assistant small:has-text('tokens/s')").wait_for(timeout=20_000)
    shoot(page, "answering")
    page.click("#stop")
    page.locator("article.assistant:not(.busy)").wait_for(timeout=5_000)
    assert "stopped" in page.locator("article.assistant small").inner_text()
    assert page.locator("#send").is_visible()


def test_a_refusal_is_shown(page: Any) -> None:
    page.fill("#text", "x" * 5000)
    page.keyboard.press("Enter")
    error = page.locator("article.assistant .error")
    error.wait_for(timeout=10_000)
    assert "exceed the model's context of 4096 tokens" in error.inner_text()
