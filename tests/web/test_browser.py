"""The page in a real browser: headless Chromium, with the bundled model and two steps."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pipeline_landscape_video.video_io import read_metadata


sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed; the extra `test-web` has it"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="not run: no Chromium on this machine"),
]
expect = sync_api.expect
SECONDS = 1000  # playwright counts in milliseconds
PATIENCE = 180 * SECONDS  # on a busy machine


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    from landscape_video.generation.settings import ImageModelSettings
    from landscape_video.web.page import launch_page
    from landscape_video.web.workshop import Workshop

    shop = Workshop(ImageModelSettings(device="cpu"), tmp_path_factory.mktemp("clips"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        app, url, _ = launch_page(shop, prevent_thread_lock=True)
        yield url
        app.blocks.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, url):
    """Open the page in a window of its own; at the end, nothing may have failed or asked for another machine."""
    problems, contexts = [], []

    def open_page(locale: str = "en-US", width: int = 1200):
        contexts.append(browser.new_context(locale=locale, viewport={"width": width, "height": 900}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: is_elsewhere(request.url) and problems.append(request.url))
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.wait_for_selector("#generate")
        return page

    def is_elsewhere(address: str) -> bool:
        return not address.startswith((url, "data:", "blob:"))

    yield open_page
    for context in contexts:
        context.close()
    assert not problems


def ask_for(page, prompt: str, steps: int = 2, frames: int = 4) -> None:
    page.fill("#prompt textarea", prompt)
    for label, value in (("Frames", frames), ("Steps", steps)):
        page.get_by_role("spinbutton", name=f"number input for {label}").first.fill(str(value))
        page.keyboard.press("Enter")


def test_a_clip_is_generated_and_plays(open_page):
    page = open_page()
    ask_for(page, "a boat on a lake", steps=6)
    page.click("#palette-snow")
    expect(page.locator("#prompt textarea")).to_have_value("a boat on a lake, under deep snow")
    page.click("#generate")
    page.wait_for_selector(".lv-preview")
    first = page.get_attribute(".lv-preview", "src")
    page.wait_for_function("old => document.querySelector('.lv-preview')?.src !== old", arg=first)
    page.wait_for_selector("video")
    page.wait_for_function("document.querySelector('video').currentTime > 0.1")
    assert "Done in" in page.inner_text(".lv-progress >> nth=0")


def test_a_clip_is_canceled(open_page):
    page = open_page()
    ask_for(page, "a boat on a lake", steps=100, frames=16)
    page.click("#generate")
    page.wait_for_selector(".lv-preview")
    page.click("#cancel-generate")
    expect(page.locator(".lv-progress").first).to_contain_text("Canceled.")
    ask_for(page, "a boat on a lake")  # the page is free again
    page.click("#generate")
    page.wait_for_selector("video")


def test_the_page_speaks_the_language_of_the_browser_and_switches(open_page):
    page = open_page("zh-CN")
    expect(page.locator("#generate")).to_have_text("生成", timeout=PATIENCE)
    assert page.evaluate("document.documentElement.lang") == "zh"
    page.click("#language")
    expect(page.locator("#generate")).to_have_text("Generate", timeout=PATIENCE)
    page.click("#generate")
    expect(page.get_by_text("A prompt is required.")).to_be_visible(timeout=PATIENCE)


def test_the_page_fits_a_narrow_screen(open_page):
    page = open_page(width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    ("tab", "upload", "button", "name", "message"),
    [
        ("Animate an image", "#image", "#animate", "broken.png", "broken.png"),
        ("Smooth a video", "#video", "#smooth", "broken.mp4", "broken.mp4"),
        ("Repeat a clip", "#clip-file", None, "broken.gif", "broken.gif"),
    ],
)
def test_a_broken_file_is_a_message(open_page, tmp_path, tab, upload, button, name, message):
    (tmp_path / name).write_bytes(b"nothing that this should be")
    page = open_page()
    open_tab(page, tab)
    page.set_input_files(f"{upload} input[type=file]", tmp_path / name)
    if button is not None:
        page.wait_for_timeout(2 * SECONDS)  # the upload
        page.click(button)
    expect(page.locator(".toast-body").first).to_contain_text(message, timeout=PATIENCE)


def test_a_clip_is_repeated_by_drag_and_drop(open_page, tmp_path):
    page = open_page()
    ask_for(page, "a boat on a lake")
    page.click("#generate")
    page.wait_for_selector("video")
    with page.expect_download() as download:
        page.locator("a[download]").first.click()
    clip = tmp_path / "clip.mp4"
    download.value.save_as(clip)
    assert read_metadata(clip)["prompt"] == "a boat on a lake"
    open_tab(page, "Repeat a clip")
    drop(page, "#clip-file", clip)
    expect(page.locator("#found-recipe")).to_contain_text("a boat on a lake")
    page.click("#repeat")
    expect(page.get_by_text("All frames are bit-identical")).to_be_visible(timeout=PATIENCE)


def test_an_image_is_animated(open_page, tmp_path):
    Image.new("RGB", (200, 150), "lightgray").save(tmp_path / "paper.png")
    page = open_page()
    open_tab(page, "Animate an image")
    page.set_input_files("#image input[type=file]", tmp_path / "paper.png")
    page.fill("#image-prompts textarea", "mist drifting right")
    for label, value in (("Frames", 4), ("Steps", 2)):
        page.get_by_role("spinbutton", name=f"number input for {label}").first.fill(str(value))
    page.wait_for_timeout(2 * SECONDS)  # the upload
    page.click("#animate")
    page.wait_for_selector("video:visible")


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def drop(page, selector: str, file: Path) -> None:
    """Drop a file on an element, as a mouse would."""
    content = list(file.read_bytes())
    transfer = page.evaluate_handle(
        """([content, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(content)], name, {type: "video/mp4"}));
            return transfer;
        }""",
        [content, file.name],
    )
    target = page.locator(f"{selector} button").first
    for event in ("dragenter", "dragover", "drop"):
        target.dispatch_event(event, {"dataTransfer": transfer})
