"""Pages in a real browser: Chromium without a window, through its own driver.

A test takes the fixture ``browser`` and is skipped where Chromium or its driver is not installed. Debian has both as
packages: ``apt install chromium chromium-driver``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Browser", "browser"]

_DRIVERS = ("chromedriver", "chromium.chromedriver")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_OVERFLOW = """
const width = document.documentElement.clientWidth;
return document.documentElement.scrollWidth <= width ? [] : [...document.body.querySelectorAll('*')]
  .filter(element => element.getBoundingClientRect().right > width + 1)
  .map(element => element.tagName.toLowerCase() + (element.id && '#' + element.id) + '.' + element.className);
"""

# The marks of a drawing are no elements to read: it has a label as a whole.
_AXE = """
const done = arguments[0];
axe.run({exclude: [['svg > *']]}, {resultTypes: ['violations']}).then(done, done);
"""


class Browser:
    """One Chromium; every page opens in the same tab.

    Args:
        driver: Selenium's driver.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path | str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Opens a file or an address in a viewport of ``width`` x ``height`` CSS pixels, in the light or dark theme."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": [theme]})
        self.driver.get_log("browser")  # messages of the page before
        self.driver.get(page.resolve().as_uri() if isinstance(page, Path) else page)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, script: str, seconds: float = 60.0) -> None:
        """Waits until a script returns true.

        Raises:
            TimeoutException: If it does not.
        """
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, seconds, 0.1).until(lambda _: self.run(script))

    def press(self, keys: str) -> None:
        """Types into the element that has the focus."""
        self.driver.switch_to.active_element.send_keys(keys)

    def media(self, name: str) -> None:
        """Shows the page as for "screen" or "print"."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": name})

    def console_errors(self) -> list[str]:
        """Errors and warnings of the console since the page was opened."""
        messages = self.driver.get_log("browser")
        return [message["message"] for message in messages if message["level"] in ("WARNING", "SEVERE")]

    def overflowing(self) -> list[str]:
        """Elements that reach beyond the right edge, if the page as a whole can be scrolled sideways."""
        return self.run(_OVERFLOW)

    def accessibility_faults(self, impacts: Sequence[str] = ("serious", "critical")) -> list[str]:
        """What axe-core finds, one sentence per rule: the rule, and the first elements that break it."""
        import axe_core_python

        source = Path(axe_core_python.__path__[0]) / "axe.min.js"
        self.run(source.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(_AXE)
        return [
            f"{rule['id']}: {rule['help']}; {', '.join(node['html'][:200] for node in rule['nodes'][:3])}"
            for rule in found["violations"]
            if rule["impact"] in impacts
        ]

    def screenshot(self, path: Path) -> None:
        """Writes the viewport as PNG."""
        self.driver.save_screenshot(str(path))


@pytest.fixture(scope="session", name="browser")
def browser() -> Iterator[Browser]:
    """Start Chromium once for all tests of a process."""
    driver_path, browser_path = (next(filter(None, map(shutil.which, n)), None) for n in (_DRIVERS, _BROWSERS))
    if driver_path is None or browser_path is None:
        pytest.skip("needs a browser and its driver: apt install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser_path
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    driver.set_script_timeout(120)
    yield Browser(driver)
    driver.quit()
