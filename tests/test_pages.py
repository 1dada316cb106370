"""The pages of a board: a pure function of its records, escaped, and readable in a browser on a phone and a desktop."""

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from boards import TINY, board_with_baselines, write_artefact

from matchgym.leaderboards.artefact import read_artefact
from matchgym.leaderboards.board import assemble
from matchgym.leaderboards.markup import NAVIGATION
from matchgym.leaderboards.site import files_of, publish
from matchgym.leaderboards.store import FolderStore
from matchgym.leaderboards.submission import submit, verify_leaders

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A board with all baselines and an artefact with hostile texts."""
    folder = tmp_path_factory.mktemp("site")
    store = board_with_baselines(folder / "board")
    data = b'{"policy": "static-threshold", "parameters": {"threshold": 0.1}}'
    texts = {"name": EVIL, "authors": [EVIL], "description": EVIL, "licence": EVIL, "url": "javascript:alert(1)", "paper": EVIL}
    method = {"algorithm": EVIL, "library": EVIL, "library_version": EVIL, "hardware": EVIL}
    artefact = write_artefact(folder / "evil", data=data, entry={"task": "tiny-demo"}, agent=texts, method=method)
    submit([read_artefact(artefact, TINY)], store, TINY)
    verify_leaders(store, TINY)
    publish(store, TINY)
    return folder / "board"


class Attributes(HTMLParser):
    """Collects the names of all attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {name for name, _ in attrs}


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_pages_are_a_function_of_the_records(site):
    """Byte for byte, from records read anew; and the same again in another order of calls."""
    store = FolderStore(site)
    first = files_of(assemble(store.records(), TINY), store.records(), store, TINY)
    assert {name: (site / name).read_bytes() for name in first} == {name: text.encode() for name, text in first.items()}
    assert len(pages(site)) == len([name for name in first if name.endswith(".html")])


def test_every_cell_stands_under_its_head(site):
    """Bars under the axis, and as many cells as heads in every row without a head of a group."""
    tables = 0
    for path in pages(site):
        for table in re.findall(r"<table.*?</table>", path.read_text(), re.DOTALL):
            head, *rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
            heads = re.findall(r"<th[^>]*>", head)
            for row in rows:
                cells = re.findall(r"<t[hd][^>]*>", row)
                kinds = heads[len(heads) - len(cells) :]
                assert len(cells) in (len(heads), len(heads) - 1), path  # a tier's number stands in its first row only
                assert [('class="chart"' in cell) for cell in cells] == [('class="chart"' in kind) for kind in kinds], path
                tables += 1
    assert tables > 50


def test_no_page_has_a_script_or_an_outside_resource(site):
    for path in pages(site):
        text = path.read_text()
        assert "<script" not in text, path
        assert "<img" not in text, path
        assert not re.search(r"""(src|href)=["']?(https?:|//|javascript:|data:)""", text), path
        assert "Content-Security-Policy" in text, path
        reader = Attributes()
        reader.feed(text)
        assert not [name for name in reader.names if name.startswith("on") or name == "style"], path
    shown = "".join(path.read_text() for path in pages(site))
    assert shown.count("&lt;script&gt;") >= 10


def test_every_link_leads_somewhere(site):
    for path in pages(site):
        for target in re.findall(r'href="([^"]*)"', path.read_text()):
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            assert file.is_file(), (path, target)
            if anchor:
                assert f'id="{anchor}"' in file.read_text(), (path, target)


def test_every_table_and_picture_has_a_name(site):
    for path in pages(site):
        text = path.read_text()
        assert text.count("<table") == text.count("<caption")
        assert text.count("<svg") == len(re.findall(r'<svg role="img" aria-label="[^"]+"', text))
        assert len(re.findall(r"<h1>", text)) == 1


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip("there is no chromium here; install it (apt install chromium)")
    with playwright.sync_playwright() as tool:
        found = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


DEVICES = {"phone": (360, 780), "tablet": (820, 1180), "desktop": (1440, 900)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_in_a_browser(site, browser, device, scheme):
    """No errors, no dialogue, nothing wider than the window, readable colours; with JavaScript off for the content."""
    width, height = DEVICES[device]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.on("requestfailed", lambda request: faults.append(request.url))
    for path in pages(site)[:: 1 if device == "phone" else 3]:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        ink, paper = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
        assert contrast(ink, paper) > 7, (path, ink, paper)
        assert page.inner_text("h1")
    page.close()
    assert faults == []


def contrast(first: str, second: str) -> float:
    """The contrast of two colours, as the accessibility guidelines (WCAG 2) define it."""

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((light(first), light(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_pages_without_javascript_and_by_keyboard(site, browser):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    assert "price-greedy" in page.inner_text("main")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # skips to the content
    assert page.url.endswith("#main")
    page.goto((site / "index.html").as_uri())
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/{list(NAVIGATION)[1]}", timeout=10_000)
    page.goto((site / "track-StationaryMatching-v0.html").as_uri())
    page.click("text=Compare any two entries")
    page.click("table.matrix td a >> nth=0")
    assert "#" in page.url
    context.close()


def test_a_narrow_screen_shows_scores_beside_names(site, browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((site / "index.html").as_uri())
    boxes = page.locator("section table td.number").first.bounding_box()
    assert boxes["x"] < 390 - 40
    page.close()
