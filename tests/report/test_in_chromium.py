"""The page in a real browser: silent, alone, usable by pointer and keyboard, legible in both themes."""

from __future__ import annotations

import json

import axe
import pytest
from chromium import opened

from jettison.report.page import page_of

DOT = "document.querySelectorAll('.dot')"
PAIR = "document.querySelector('[data-pair]')"
TIP = "document.getElementById('tip')"


@pytest.fixture(scope="module")
def browser(page):
    with opened(page) as found:
        yield found


def is_quiet(found, page):
    """No error in the console, and no request but for the page itself and the pictures within it."""
    outside = [url for url in found.requests if url != page.as_uri() and not url.startswith("data:")]
    return (found.problems, outside) == ([], [])


def test_the_page_loads_without_an_error_and_asks_nobody(browser, page, report_run):
    assert is_quiet(browser, page), (browser.problems, browser.requests)
    assert browser.value("document.title").startswith(report_run.HOSTILE)
    assert browser.value("document.querySelector('.pic').getBoundingClientRect().width") > 0
    assert browser.value("getComputedStyle(document.querySelector('.pic.p0')).backgroundImage").startswith(
        'url("data:image/png;base64,'
    )


def test_names_with_markup_are_text(browser, report_run):
    assert browser.value("document.querySelector('h1').textContent") == report_run.HOSTILE
    assert (
        browser.value("document.images.length + document.querySelectorAll('[onload],[onerror]').length") == 0
    )
    assert browser.value("document.querySelectorAll('script').length") == 3, "figures of two targets, our own"


def test_markup_that_slipped_through_would_not_run(page, tmp_path):
    """The policy allows one script by its digest: any other one is blocked, and the browser says so."""
    broken = tmp_path / "broken.html"
    text = page.read_text(encoding="utf-8")
    evil = "<script>document.title='broken'</script><img src='http://127.0.0.1:9/x.png'>"
    broken.write_text(text.replace("<footer", f"{evil}<footer"), encoding="utf-8")
    with opened(broken) as found:
        assert found.value("document.title") != "broken"
        assert any("Content Security Policy" in problem for problem in found.problems)


def test_hover_names_the_variant_and_its_figures(browser):
    browser.hover(f"{DOT}[1].querySelector('.mark')")
    assert browser.value(f"{TIP}.hidden") is False
    assert browser.value(f"{TIP}.textContent.startsWith({DOT}[1].dataset.name)")
    assert "score 0.75" in browser.value(f"{TIP}.textContent")
    browser.hover("document.querySelector('h1')")
    assert browser.value(f"{TIP}.hidden") is True


def test_a_click_puts_two_variants_side_by_side(browser):
    names = browser.value(f"[...{DOT}].map((dot) => dot.dataset.name)")
    assert browser.value(f"{PAIR}.querySelector('[data-a]').textContent") == "baseline"
    browser.click(f"{DOT}[2].querySelector('.mark')")
    told = browser.value(f"[...{PAIR}.tHead.rows[0].cells].map((cell) => cell.textContent)")
    assert told[1:3] == [names[1], names[2]], "the older choice goes"
    rows = dict(
        browser.value(
            f"[...{PAIR}.tBodies[0].rows].map((r) => [r.cells[0].textContent, r.cells[3].textContent])"
        )
    )
    assert rows["latency, median"] == "1.20×"  # 12 ms by 10 ms
    assert browser.value(f"{DOT}[2].getAttribute('aria-pressed')") == "true"
    browser.click(f"{DOT}[2].querySelector('.mark')")
    assert browser.value(f"{PAIR}.hidden") is True
    browser.click(f"{DOT}[0].querySelector('.mark')")


def test_the_keyboard_reaches_every_point_in_order_and_chooses_it(browser):
    """Tab from a point goes to the next one, tells it, and Enter and space choose it."""
    browser.value(f"{DOT}[0].focus()")
    for number in (1, 2):
        browser.press("Tab", code=9)
        assert browser.value(f"document.activeElement === {DOT}[{number}]")
        assert browser.value(f"{TIP}.hidden") is False
    for key, code in (("Enter", 13), (" ", 32)):
        before = browser.value(f"{DOT}[2].getAttribute('aria-pressed')")
        browser.press(key, code=code, text="\r" if key == "Enter" else key)
        assert browser.value(f"{DOT}[2].getAttribute('aria-pressed')") != before
    browser.press("Escape", code=27)
    assert browser.value(f"{TIP}.hidden") is True


def test_the_first_tab_skips_to_the_results(page):
    with opened(page) as found:
        found.press("Tab", code=9)
        assert found.value("document.activeElement.className") == "skip"
        positive = "[...document.querySelectorAll('[tabindex]')].filter((e) => e.tabIndex > 0).length"
        assert found.value(positive) == 0, "the order of the page is the order of the keyboard"


def test_a_column_sorts_both_ways_and_back(browser):
    column = "document.querySelector('.layers').tHead.rows[0].cells[3]"
    cells = "[...document.querySelector('.layers').tBodies[0].rows].map((row) => row.cells[3].dataset.value)"
    first = browser.value(cells)
    browser.click(f"{column}.querySelector('button')")
    up = [float(value) for value in browser.value(cells) if value]
    assert up == sorted(up)
    assert browser.value(f"{column}.getAttribute('aria-sort')") == "ascending"
    browser.click(f"{column}.querySelector('button')")
    down = [float(value) for value in browser.value(cells) if value]
    assert down == up[::-1]
    browser.click(f"{column}.querySelector('button')")
    assert browser.value(cells) == first


def test_the_theme_follows_the_system_and_the_switch(browser):
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.prefer("light")
    light = browser.value(paper)
    browser.prefer("dark")
    dark = browser.value(paper)
    assert light != dark
    browser.click("document.getElementById('theme')")
    assert browser.value(paper) == light
    browser.click("document.getElementById('theme')")
    browser.prefer("light")
    assert browser.value(paper) == dark, "who switched has said what they want"
    browser.value("delete document.documentElement.dataset.theme")


def violations(found):
    """What axe-core finds, with every part open; and that it looked at contrasts at all."""
    found.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found.value(f"{axe.source()}; void 0")
    told = json.loads(found.value("axe.run(document).then((told) => JSON.stringify(told))"))
    assert "color-contrast" in {rule["id"] for rule in told["passes"]}
    return [
        (rule["id"], rule["nodes"][0]["html"][:200], rule["nodes"][0]["failureSummary"])
        for rule in told["violations"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser, scheme):
    browser.prefer(scheme)
    assert violations(browser) == []


def test_print_opens_every_part(browser):
    browser.value("document.querySelectorAll('details').forEach((one) => { one.open = false; })")
    closed = len(browser.printed())
    browser.value("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert closed == pytest.approx(len(browser.printed()), rel=0.02)  # dates and identifiers differ


def test_a_run_of_5000_layers_opens(report_run, tmp_path):
    folder = report_run.write_run(tmp_path / "large", layers=5000)
    file = tmp_path / "large.html"
    file.write_text(page_of(folder), encoding="utf-8")
    assert file.stat().st_size < 2_000_000
    with opened(file) as found:
        assert is_quiet(found, file), (found.problems, found.requests)
        assert found.value("document.querySelector('h1').textContent") == report_run.HOSTILE
        assert found.value("document.querySelector('.layers').tBodies[0].rows.length") == 225


def test_two_variants_side_by_side_keep_the_page_sound(run, tmp_path):
    file = tmp_path / "pair.html"
    file.write_text(
        page_of(run, compare=("{{ 7 * 7 }}{% raw %} 2", "'\"><svg/onload=document.title='broken'> 1"))
    )
    with opened(file) as found:
        assert violations(found) == []
        assert found.value(f"{PAIR}.querySelector('[data-a]').textContent") == "{{ 7 * 7 }}{% raw %} 2"
        assert is_quiet(found, file), (found.problems, found.requests)
