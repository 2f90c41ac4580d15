"""Take the pictures of docs/gallery.md: ``python docs/take_pictures.py``.

Needs chromium, pillow and the embedded model.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
PICTURES, REPORT = DOCS / "pictures", DOCS.parent / "examples" / "bench" / "report.html"
PROMPT = "Describe a walk along the sea in two sentences."
INSPECT = ["inspect", PROMPT, "--chat", "--chain", "cfg(2.0)", "--max-new-tokens", "48"]
MOST_BYTES = 150_000
COLOURS = 128
WIDE, PHONE = (1000, 760), (390, 844)


def take(page: Path, name: str, size: tuple[int, int], *options: str) -> None:
    """Write a picture of a page as a browser shows it in a window of this size.

    Raises:
        SystemExit: the picture is larger than the gallery allows.
    """
    target, browser = PICTURES / f"{name}.png", shutil.which("chromium") or "chromium"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000"]
    window = [f"--window-size={size[0]},{size[1]}", f"--screenshot={target}"]
    subprocess.run([browser, *flags, *window, *options, page.absolute().as_uri()], check=True, capture_output=True)
    with Image.open(target) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(target, optimize=True)
    if target.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{target} must have at most {MOST_BYTES} bytes, got {target.stat().st_size}")


def without_text_before(section: str, into: Path) -> Path:
    """Write the report without what stands between its title and a section, and return the path of this page."""
    title, rest = REPORT.read_text(encoding="utf-8").split("<main>")
    begin = rest.index(f'<section aria-labelledby="{section}"')
    into.write_text(f"{title}<main>{rest[begin:]}", encoding="utf-8")
    return into


def main() -> None:
    """Take every picture."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        subprocess.run([shutil.which("logitkit") or "logitkit", *INSPECT, "--out", str(page)], check=True)
        take(page, "inspect_phone", PHONE, "--force-dark-mode")
        take(without_text_before("plots", page), "report", WIDE)
        take(without_text_before("holds", page), "report_phone", PHONE, "--force-dark-mode")


if __name__ == "__main__":
    main()
