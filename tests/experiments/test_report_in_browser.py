"""The report in a real browser: no errors, no overflow, tables that sort, values that can be read, sheets, playing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from report_results import arrays_of, page_of, results_of

from scoresde.experiments.report.html import Report
from scoresde.experiments.results import read_results, write_results

SHAPES = {"images": ([1, 8, 8], 17), "points": ([2], None), "series": ([2, 12], None), "volumes": ([1, 5, 6, 7], None)}


class Pages(dict[str, Path]):
    """The page of each kind of data, made when it is first asked for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self.factory = factory

    def __missing__(self, kind: str) -> Path:
        self[kind] = page_of(self.factory.mktemp(kind), *SHAPES[kind])
        return self[kind]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    return Pages(tmp_path_factory)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_opens_without_errors_overflow_or_faults_of_accessibility(
    browser: Browser, pages: Pages, kind: str, dark: bool
) -> None:
    browser.open(pages[kind], width=420, dark=dark)
    assert browser.console_errors() == []
    assert browser.overflowing() == []
    assert browser.accessibility_faults() == []
    cut = "return [...document.querySelectorAll('.panel')].filter(p => p.getBoundingClientRect().right > innerWidth)"
    assert browser.run(cut + ".length") == 0


def test_the_theme_follows_the_system_until_the_button_says_otherwise(browser: Browser, pages: Pages) -> None:
    color = "return getComputedStyle(document.body).backgroundColor"
    browser.open(pages["images"], dark=True)
    dark = browser.run(color)
    browser.run("document.getElementById('theme').click()")
    light = browser.run(color)
    browser.open(pages["images"])
    assert browser.run(color) == light != dark


def test_a_click_on_a_heading_sorts_by_number_and_the_third_restores_the_order(browser: Browser, pages: Pages) -> None:
    browser.open(pages["images"])
    cells = """
        const table = document.getElementById('distances-table');
        const column = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.startsWith('× floor'));
        return [...table.tBodies[0].rows].map(row => parseFloat(row.cells[column].textContent));
    """
    click = "[...document.querySelectorAll('#distances-table .sort')].find(b => b.textContent === '× floor').click()"
    sort = "return document.querySelector('#distances-table [aria-sort]')?.getAttribute('aria-sort')"
    original = browser.run(cells)
    assert original == [1.0, 1.4, 1.05, 1.15, 1.05, 1.15]
    for order, expected in (("ascending", sorted(original)), ("descending", sorted(original)[::-1]), (None, original)):
        browser.run(click)
        assert browser.run(sort) == order
        assert browser.run(cells) == expected


def test_the_pointer_and_the_arrow_keys_show_values(browser: Browser, pages: Pages) -> None:
    browser.open(pages["images"])
    tip = "const tip = document.getElementById('tip'); return tip.hidden ? '' : tip.textContent"
    assert browser.run(tip) == ""
    browser.run("""
        const plot = document.querySelector('#likelihoods .plot'), svg = plot.querySelector('svg');
        plot.scrollIntoView();
        const [x, y] = JSON.parse(plot.dataset.points)[1];
        const at = new DOMPoint(x + 2, y + 2).matrixTransform(svg.getScreenCTM());
        plot.dispatchEvent(new PointerEvent('pointermove', {clientX: at.x, clientY: at.y, bubbles: true}));
    """)
    assert browser.run(tip) == "Simple(): 2.1710 ± 0.0130"
    browser.run("document.querySelector('#likelihoods .plot').dispatchEvent(new PointerEvent('pointerleave'))")
    assert browser.run(tip) == ""
    browser.run("document.querySelector('#likelihoods .plot').focus()")
    for expected in ("ELBO(): 2.0710 ± 0.0130", "Simple(): 2.1710 ± 0.0130"):
        browser.press("\ue014")  # the right arrow
        assert browser.run(tip) == expected
    browser.press("\ue00c")  # escape
    assert browser.run(tip) == ""


def test_the_marked_point_is_where_the_drawing_has_it(browser: Browser, pages: Pages) -> None:
    browser.open(pages["images"])
    apart = browser.run("""
        const plot = document.querySelector('#sampler-differences .plot');
        const [[x, y]] = JSON.parse(plot.dataset.points), svg = plot.querySelector('svg');
        const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
        const boxes = [...svg.querySelectorAll('use')].map(dot => dot.getBoundingClientRect());
        return Math.min(...boxes.map(b => Math.hypot(b.x + b.width / 2 - at.x, b.y + b.height / 2 - at.y)));
    """)
    assert apart < 1.5


def test_a_sheet_is_enlarged_pixel_by_pixel(browser: Browser, pages: Pages) -> None:
    browser.open(pages["images"], width=420)
    browser.run("document.querySelector('#samples .sheet').click()")
    state = """
        const image = document.getElementById('zoom-image');
        return [image.width / image.naturalWidth, getComputedStyle(image).imageRendering, image.alt];
    """
    browser.wait_for("return document.getElementById('zoom-image').style.width !== ''")
    fitted, rendering, label = browser.run(state)
    assert fitted >= 1
    assert fitted == round(fitted)
    assert rendering == "pixelated"
    assert label == "A sheet of images: held out."
    browser.run("document.querySelector('[data-zoom=\"1\"]').click()")
    assert browser.run(state)[0] > fitted
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    browser.press("\ue00c")
    assert browser.run("return document.getElementById('zoom').open") is False


def test_trajectories_play_from_noise_to_data(browser: Browser, pages: Pages) -> None:
    browser.open(pages["points"])
    arrays = arrays_of(results_of([2], None))
    browser.run("document.querySelector('.player').scrollIntoView()")
    dots = """
        const plots = [...document.querySelectorAll('[data-motion]')];
        const at = dot => [+dot.getAttribute('cx'), +dot.getAttribute('cy')];
        return plots.map(plot => [...plot.querySelectorAll('.mover')].map(at));
    """
    set_slider = """
        const slider = document.querySelector('.player input');
        slider.value = arguments[0];
        slider.dispatchEvent(new Event('input'));
    """
    browser.run(set_slider, 0)
    first = np.asarray(browser.run(dots))
    browser.run(set_slider, 1000)
    last = np.asarray(browser.run(dots))
    x = arrays["w0-seed0/s0/trajectory_x"]
    for shown, state in ((first[0], x[0]), (last[0], x[-1])):
        slope = np.polyfit(state[:, 0], shown[:, 0], 1)
        np.testing.assert_allclose(np.polyval(slope, state[:, 0]), shown[:, 0], atol=0.1)
        slope = np.polyfit(state[:, 1], shown[:, 1], 1)
        assert slope[0] < 0  # the y of an SVG points down
        np.testing.assert_allclose(np.polyval(slope, state[:, 1]), shown[:, 1], atol=0.1)
    browser.run("document.querySelector('.player button').click()")
    browser.wait_for("return document.querySelector('.player button').textContent === 'Play'")
    assert browser.run("return document.querySelector('.player input').value") == "1000"


def test_in_print_the_page_is_light_and_has_no_controls(browser: Browser, pages: Pages) -> None:
    browser.open(pages["points"], dark=True)
    browser.media("print")
    shown = "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).length"
    assert browser.run(shown, ".player, #theme, details.values, a.how") == 0
    assert browser.run(shown, "svg") > 10
    assert browser.run("return getComputedStyle(document.querySelector('h1')).color") == "rgb(28, 35, 48)"


def test_a_page_of_large_images_stays_under_three_megabytes(tmp_path: Path) -> None:
    results = results_of([3, 96, 96], 256)
    write_results(tmp_path, results, arrays_of(results))
    assert len(Report.of(read_results(tmp_path)).page().encode()) < 3_000_000
