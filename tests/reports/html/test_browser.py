"""The page in a real browser, at three widths: no request, no error, no overflow, enough contrast."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Tab, chromium, executable
from ticket_folders import make_ticket

import certify
from reports.html.page import page

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "reports" / "published" / "en-ca-experiment" / "tickets" / "tickets.json"
WIDTHS = (360, 800, 1400)
MOST_BYTES = 3_000_000

CONTRAST = """
(() => {
  const shade = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [[r, 0.2126], [g, 0.7152], [b, 0.0722]].reduce((sum, [v, weight]) =>
    sum + weight * (v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4), 0);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const found = shade(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const one of document.querySelectorAll("body *:not(script)")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || one.closest("svg, title")) continue;
    const [a, b] = [light(shade(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${one.tagName} ${one.className}`);
  }
  return [...new Set(poor)];
})()
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    if executable() is None:
        pytest.skip("NOT RUN: no Chromium is installed")
    with chromium() as tab:
        yield tab


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the eight tickets of the reference experiment."""
    text = page([certify.check(SHIPPED)])
    assert len(text.encode()) < MOST_BYTES
    path = tmp_path_factory.mktemp("shipped") / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_quiet_and_fits(browser: Tab, shipped: Path, width: int, dark: bool) -> None:
    browser.requests.clear()
    browser.said.clear()
    browser.open(shipped, width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelector('.plot').scrollWidth") <= width
    assert browser.run(CONTRAST) == []
    assert browser.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(21, 24, 28)" if dark else "rgb(253, 253, 251)"
    )
    seen = browser.picture(whole=False, height=900)
    assert len(seen) > 10_000, "an empty page is smaller"
    if folder := os.environ.get("SCREENSHOTS"):  # to look at them
        scheme = "dark" if dark else "light"
        Path(folder, f"report-{width}-{scheme}.png").write_bytes(browser.picture(height=7000))
    assert browser.requests == [shipped.resolve().as_uri()]
    assert browser.said == []


def test_clouds_are_drawn_and_read_without_scripts(browser: Tab, shipped: Path) -> None:
    # As if every figure were in sight: only then a cloud is drawn.
    there = "document.querySelector('[data-cloud]')"
    browser.open(shipped, 800)
    browser.run(f"{there}.scrollIntoView()")
    browser.run("new Promise((done) => setTimeout(done, 500))")
    pixels = f"{there}.querySelector('canvas').getContext('2d').getImageData(0, 0, 2000, 2000).data"
    assert browser.run(f"{pixels}.some((value) => value)")
    assert browser.run(f"getComputedStyle({there}.querySelector('.cloud-use')).display") == "none"
    browser.open(shipped, 800, scripts=False)
    assert browser.run(f"{there}.querySelector('canvas')") is None
    assert browser.run(f"{there}.querySelector('.cloud-use').getBBox().width > 50")


def test_sentences_can_be_filtered_and_sorted(browser: Tab, shipped: Path) -> None:
    browser.open(shipped, 1400)
    browser.run(
        "globalThis.table = document.querySelector('table.browse'); table.closest('details').open = true"
    )
    ids = "[...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[0].textContent)"
    first = browser.run(ids)
    browser.run("table.tHead.rows[0].cells[6].querySelector('button').click()")
    scores = "[...table.tBodies[0].rows].map((row) => Number(row.cells[6].textContent))"
    assert browser.run(scores) == sorted(browser.run(scores))
    field = "table.parentElement.previousElementSibling.querySelector('input')"
    browser.run(f"{field}.value = {first[0]!r}; {field}.dispatchEvent(new Event('input'))")
    assert browser.run(ids) == [first[0]]


def test_the_judge_of_contrast_and_requests_can_fail(browser: Tab, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><p style='color:#999'>x</p><img src='nothing.png'><script>nothing()</script>"
    )
    browser.requests.clear()
    browser.said.clear()
    browser.open(bad, 800)
    assert browser.run(CONTRAST) == ["P "]
    assert len(browser.requests) == 2
    assert browser.said


def test_a_large_table_makes_a_page_of_bounded_size(browser: Tab, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    base = random.normal(0, 0.02, (128_000, 32)).astype(np.float16)
    tuned = base + random.normal(0, 0.004, base.shape).astype(np.float16)
    tuned[:40] += np.float16(0.05)
    path = make_ticket(tmp_path, base=base, tuned=tuned, alpha="0.0001")
    text = page([certify.check(path, policy="selection")])
    assert len(text.encode()) < MOST_BYTES
    out = tmp_path / "report.html"
    out.write_text(text, encoding="utf-8")
    browser.said.clear()
    browser.open(out, 1400)
    assert browser.said == []
