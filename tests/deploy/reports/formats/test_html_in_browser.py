"""The page in Chromium: nothing on the console, tables that sort, no sideways scrolling."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape

import pytest

from bibench_deploy.reports import published_hardware_track, render

pytestmark = pytest.mark.slow

# Presses every header twice, then says what it found where a dump of the page shows it.
PRESS = """
<script>
const columns = [];
for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const cells = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
    const seen = [];
    for (const press of [1, 2]) {
      header.querySelector("button").click();
      seen.push({ order: header.getAttribute("aria-sort"), cells: cells() });
    }
    columns.push({ title: table.caption.textContent, name: header.innerText, seen });
  });
}
const found = document.createElement("pre");
found.id = "found";
const root = document.documentElement;
found.textContent = JSON.stringify({ columns, wide: root.scrollWidth, window: innerWidth });
document.body.append(found);
</script>
"""

# A window of Chromium's has a least width above a phone's; a frame has none.
FRAME = """<!doctype html>
<iframe srcdoc="{page}" style="width: {width}px; height: 900px; border: 0"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => document.body.append(frame.contentDocument.getElementById("found"));
</script>
"""


def open_page(path, *, is_dark=False):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.fail("this test opens the report in Chromium: apt-get install chromium")
    scheme = 0 if is_dark else 1
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={path.parent / 'profile'}", "--window-size=1400,1000",
         f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    return console, json.loads(found.group(1)) if found else None


@pytest.fixture
def show(tmp_path):
    def show(content, width=1280, **options):
        page = tmp_path / "report.html"
        html = render(content, "html")
        html = escape(html.replace("</body>", f"{PRESS}</body>"))
        page.write_text(FRAME.format(page=html, width=width), encoding="utf-8")
        return open_page(page, **options)

    return show


@pytest.mark.parametrize(("width", "is_dark"), [(1280, False), (390, True)])
def test_no_console_message_and_no_sideways_scrolling(demo, show, width, is_dark):
    console, found = show(demo, width, is_dark=is_dark)
    assert console == []
    assert found["window"] == width
    assert found["wide"] <= width


def test_a_console_error_would_be_seen(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><script>missing()</script>", encoding="utf-8")
    console, _ = open_page(page)
    assert any("missing is not defined" in line for line in console)


def test_every_column_of_every_table_sorts_both_ways(demo, show):
    _, found = show(demo)
    columns = {(column["title"], column["name"]): column["seen"] for column in found["columns"]}
    assert len(columns) > 40
    for up, down in columns.values():
        assert (up["order"], down["order"]) == ("ascending", "descending")
        assert sorted(up["cells"]) == sorted(down["cells"])
    up, down = columns["Size", "File"]
    assert [up["cells"][0], up["cells"][-1]] == ["59.0 kB", "46.8 MB"]
    assert down["cells"][0] == "46.8 MB"
    # What is not known stands last both ways.
    up, down = columns["Size", "Smaller than twin"]
    assert up["cells"][-1] == down["cells"][-1] == "–"


def test_the_papers_page_sorts_its_latencies_by_number(show):
    console, found = show(published_hardware_track())
    (seen,) = (c["seen"] for c in found["columns"] if c["name"] == "FP32")
    times = [float(cell.removesuffix(" ms")) for cell in seen[0]["cells"]]
    assert console == []
    assert times == sorted(times)
    assert times[0] < 10 < 1000 < times[-1]
