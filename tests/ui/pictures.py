"""Make the pictures of docs/guides/web-page.md: `python -m tests.ui.pictures`. It needs chromium and a minute."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from tests.ui import browser as browsing
from tests.ui.conftest import running_page, write_models


PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


def main() -> None:
    with tempfile.TemporaryDirectory() as parent:
        home, models = Path(parent) / "home", Path(parent) / "models"
        home.mkdir()
        models.mkdir()
        with running_page(home, write_models(models)) as page, browsing.open_browser() as browser:
            with browsing.open_page(browser, page.url, height=1000) as tab:
                browsing.inspect(tab, "user/preset")
                browsing.convert(tab)
                _draw(tab, "#conversion", PICTURES / "web-page.png", 2400)
            with browsing.open_page(browser, page.url, width=390, height=844, scheme="dark") as tab:
                browsing.inspect(tab, "user/preset")
                browsing.choose(tab, "normalize", "uncased")
                browsing.convert(tab)
                _draw(tab, "#conversion", PICTURES / "web-page-phone.png", 3400)


def _draw(tab: Any, shown: str, file: Path, height: int) -> None:
    """Draw the page from its top, as far as the height says."""
    tab.locator(shown).scroll_into_view_if_needed()
    tab.mouse.move(0, 0)
    tab.wait_for_timeout(1000)
    tab.screenshot(path=file, full_page=True)
    with Image.open(file) as image:
        cut = image.convert("RGB").crop((0, 0, image.width, min(height, image.height)))
    cut.quantize(128).save(file, optimize=True)


if __name__ == "__main__":
    main()
