"""Tests of the plots of the page Numbers in a real browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, async_playwright, expect

from console.app import make_app
from console.context import ConsoleContext
from console.server import ServerOptions, listen, serve
from ingest.contract.codec import encode_json
from ingest.contract.topics import MEASURES
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from tests.chromium import launch_options
from tests.console.conftest import PASSWORD
from tests.console.records import configure, minute

VALUES = tuple(f"class{number:02}.forward" for number in range(10))
PATIENCE_MS = 60_000
REFRESHABLE = """
const plain = window.setInterval;
window.setInterval = (work, ms) => { if (ms === 60000) window.refresh = work; return plain(work, ms); };
"""
"""Script that keeps the function that the page calls once per minute."""
DRAWN = "plot => plot.querySelector('canvas')?.toDataURL() ?? ''"


@pytest.fixture
async def page(context: ConsoleContext, log: MemoryLog, clock: ManualClock) -> AsyncIterator[Page]:
    """Yield the page Numbers of a signed-in user, with a measure of ten values."""
    await configure(log)
    for number in range(5):
        values = {value: float(number + 5 * index) for index, value in enumerate(VALUES)}
        await log.produce(Outgoing(MEASURES, 0, encode_json(minute(number, values))))
    await context.feed.catch_up(log)
    clock.seconds += (minute(6).start_ns - clock.now_ns()) / 1e9
    stop = asyncio.Event()
    with listen("127.0.0.1", 0) as listener:
        serving = asyncio.create_task(serve(make_app(context), listener, ServerOptions(), stop))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with async_playwright() as playwright:
            chromium = await playwright.chromium.launch(**launch_options())
            opened = await chromium.new_page()
            opened.set_default_timeout(PATIENCE_MS)
            await opened.add_init_script(REFRESHABLE)
            await opened.goto(f"{address}/sign-in?next=/numbers")
            await opened.get_by_label("Name").fill("vera")
            await opened.get_by_label("Password").fill(PASSWORD)
            await opened.get_by_role("button", name="Sign in").click()
            yield opened
            await chromium.close()
        stop.set()
        await serving


async def test_each_value_of_a_measure_can_be_shown_or_hidden_and_the_first_eight_are_shown(page: Page) -> None:
    switches = page.locator(".measure .line-switch")
    await expect(switches).to_have_count(len(VALUES), timeout=PATIENCE_MS)
    shown = [await each.get_attribute("aria-pressed") for each in await switches.all()]
    assert shown == ["true"] * 8 + ["false"] * 2
    plot = page.locator(".measure .plot")
    pictures = {await plot.evaluate(DRAWN)}
    for name, pressed in ((VALUES[8], "true"), (VALUES[0], "false"), (VALUES[9], "true")):
        await page.get_by_role("button", name=name).click()
        await expect(page.get_by_role("button", name=name)).to_have_attribute("aria-pressed", pressed)
        pictures.add(await plot.evaluate(DRAWN))
    assert len(pictures) == 4
    assert "" not in pictures


async def test_a_plot_without_any_line_can_be_filled_again(page: Page) -> None:
    switches = page.locator(".measure .line-switch")
    await expect(switches).to_have_count(len(VALUES), timeout=PATIENCE_MS)
    errors: list[object] = []
    page.on("pageerror", lambda error: errors.append(error))
    plot = page.locator(".measure .plot")
    full = await plot.evaluate(DRAWN)
    for change in ("false", "true"):
        for each in (await switches.all())[:8]:
            await each.click()
            await expect(each).to_have_attribute("aria-pressed", change)
        assert (await plot.evaluate(DRAWN) == full) == (change == "true")
    assert await plot.evaluate(DRAWN) == full
    assert not errors


async def test_a_choice_and_the_keyboard_focus_survive_the_refresh_of_each_minute(page: Page) -> None:
    chosen = page.get_by_role("button", name=VALUES[0])
    await chosen.press("Space")
    await expect(chosen).to_have_attribute("aria-pressed", "false")
    await chosen.evaluate("button => { button.id = 'old'; }")
    before = await page.locator(".measure .plot").evaluate(DRAWN)
    await page.evaluate("window.refresh()")
    await expect(page.locator("#old")).to_have_count(0)
    await expect(chosen).to_have_attribute("aria-pressed", "false")
    await expect(chosen).to_be_focused()
    assert await page.locator(".measure .plot").evaluate(DRAWN) == before
    assert await page.locator(".measure .plot canvas").count() == 1


async def test_a_choice_survives_the_change_of_the_period(page: Page) -> None:
    await page.get_by_role("button", name=VALUES[0]).click()
    await page.get_by_label("Period").select_option("1")
    await page.wait_for_url("**/numbers?hours=1")
    shown = page.locator(".measure .line-switch")
    await expect(shown).to_have_count(len(VALUES))
    assert [await each.get_attribute("aria-pressed") for each in await shown.all()] == [
        "false",
        *["true"] * 7,
        *["false"] * 2,
    ]
