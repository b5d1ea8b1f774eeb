"""Draw docs/figures/evaluation_report.png: the head of the report of `make evaluate`. Needs Chromium.

python docs/figures/evaluation_report.py
"""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "runs/evaluate/scores/report.html"


def main() -> None:
    """Take the image."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    out = Path(__file__).with_suffix(".png")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,820"]
    subprocess.run([browser, *options, f"--screenshot={out}", REPORT.as_uri()], check=True)  # noqa: S603


if __name__ == "__main__":
    main()
