"""The page of a run in a browser: every picture is drawn, and no script runs but its own."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import tiny

from simulations.engine import Engine

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture
def page(folder: Path, few_steps: None) -> str:
    run = Engine(tiny(evaluate_every=2), str(folder)).run()
    return (run / "report.html").read_text()


def opened(page: str, folder: Path) -> str:
    """What a browser makes of a page, which must have nothing to complain of."""
    file = folder / "opened.html"
    file.write_text(page)
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"),
        *("--enable-logging=stderr", file.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr  # where refused sources and errors of scripts are named
    return done.stdout


def test_a_browser_draws_every_picture_and_slides_over_the_rounds(
    page: str, tmp_path: Path
) -> None:
    """By a script added to the page, which is allowed for that; without it, only the page's own
    is.
    """
    assert "default-src 'none'; img-src" in page
    assert '<div class="slider" hidden>' in page
    assert '<div class="slider">' in opened(page, tmp_path)  # its own script was run
    script = """<script>addEventListener("load", () => {
      const shown = [...document.images].filter((image) => image.naturalWidth > 0).length;
      const slider = document.querySelector(".slider input"), seen = [];
      for (slider.value = slider.min; seen.length <= slider.max; slider.stepUp()) {
        slider.dispatchEvent(new Event("input"));
        const frames = document.querySelectorAll("[data-round]:not([hidden])");
        seen.push([...frames].map((frame) => frame.dataset.round).join(" "));
      }
      document.title = `drawn: ${shown}; rounds: ${seen.join(", ")}`;
    })</script>"""
    page = re.sub(r"'sha256-[^']+'", "'unsafe-inline'", page, count=1)
    found = opened(page.replace("</body>", f"{script}</body>"), tmp_path)
    pictures = len(re.findall("<img ", page))
    assert f"<title>drawn: {pictures}; rounds: 1, 2 2, 3 3</title>" in found


def test_a_browser_runs_no_script_that_is_not_the_page_s_own(page: str, tmp_path: Path) -> None:
    added = page.replace("</body>", "<script>document.title = 'pwned'</script></body>")
    with pytest.raises(AssertionError, match="Content Security Policy"):
        opened(added, tmp_path)
