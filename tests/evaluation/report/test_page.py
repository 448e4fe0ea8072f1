"""`landscape-video report`: one page with numbers, protocol and clips that says what it left out and loads nothing."""

import base64
import io
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from landscape_video.cli.main import app
from landscape_video.evaluation.report.page import write_report
from measured_systems import PROMPTS, PROTOCOL, SYSTEMS, write_measured
from pipeline_landscape_video.video_io import read_metadata, read_video


SOFP = Path(__file__).parents[3] / "benchmarks" / "results" / "sofp.json"
VOID = {"meta", "img", "input", "br", "wbr", "link", "line", "rect", "path"}


@dataclass
class Page(HTMLParser):
    """A page as a tree is read: elements with their attributes, text, and that everything opened is closed."""

    html: str
    elements: list[tuple[str, dict]] = field(default_factory=list)
    text: str = ""
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        assert self.open == []

    def handle_starttag(self, tag, attributes) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]

    def of_class(self, name: str) -> list[dict]:
        return [attributes for _, attributes in self.elements if name in (attributes.get("class") or "").split()]


def run(*arguments: object):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    return write_measured(tmp_path_factory.mktemp("measured"))


@pytest.fixture(scope="module")
def page(measured, tmp_path_factory) -> Page:
    output = tmp_path_factory.mktemp("page") / "report.html"
    assert write_report([measured], output, "Hills & <lakes>", SOFP) == []
    return Page(output.read_text(encoding="utf-8"))


def decode(uri: str, kind: str) -> bytes:
    beginning = f"data:{kind};base64,"
    assert uri.startswith(beginning)
    return base64.b64decode(uri[len(beginning) :], validate=True)


def test_every_clip_of_every_system_plays_in_the_page(page, tmp_path):
    videos = page.all("video")
    assert len(videos) == len(PROMPTS) * len(SYSTEMS)
    for index, video in enumerate(videos):
        (tmp_path / f"{index}.mp4").write_bytes(decode(video["src"], "video/mp4"))
        clip = read_video(tmp_path / f"{index}.mp4")
        assert clip.frames.shape == (8, 48, 64, 3)
        assert {"muted", "loop", "playsinline", "controls"} <= set(video)
    rates = [round(read_video(tmp_path / f"{index}.mp4").fps) for index in range(len(SYSTEMS))]
    assert rates == [fps for _, _, fps in SYSTEMS.values()]  # side by side, in the order of the file
    assert read_metadata(tmp_path / "0.mp4") == {}  # the page says it once, not every clip again


def test_contact_sheets_show_the_clip_from_first_to_last(page):
    sheets = page.all("img")
    assert len(sheets) == len(PROMPTS) * len(SYSTEMS)
    for sheet in sheets:
        with Image.open(io.BytesIO(decode(sheet["src"], "image/webp"))) as image:
            assert image.size == (3 * 64, 2 * 48)
            first, last = image.crop((0, 0, 64, 48)), image.crop((128, 48, 192, 96))
            still = "still frame" in sheet["alt"]
            assert (sum(abs(a - b) for a, b in zip(first.tobytes(), last.tobytes(), strict=True)) < 40_000) == still


def test_whoever_cannot_see_is_told(page):
    (html,) = page.all("html")
    assert html["lang"] == "en"
    for sheet, video in zip(page.all("img"), page.all("video"), strict=True):
        assert re.match("Six frames, first to last, of .+ for: .+", sheet["alt"])
        assert re.match("Clip of .+ for: .+", video["aria-label"])
    assert page.all("svg") and page.of_class("scroll") and page.all("th")
    assert all(svg["aria-hidden"] == "true" for svg in page.all("svg"))  # the numbers are beside them as text
    for scrollable in page.of_class("scroll"):
        assert scrollable["tabindex"] == "0" and scrollable["role"] == "region" and scrollable["aria-label"]
    assert all(head["scope"] in ("col", "row") for head in page.all("th"))
    assert "(lower is better)" in page.text and "(higher is better)" in page.text


def test_numbers_stand_with_their_spread_and_their_protocol(page):
    assert "0.900" in page.text and "0.894 to 0.906" in page.text
    for name, line in PROTOCOL.items():
        assert name in page.text and line in page.text
    assert "sha256 35fac5d1fa67ce738ac854a7017821875315ffbb3807e0721f6c4b8f2a649ca6" in page.text  # of the benchmark
    assert "Fréchet distance" in page.text and "with nothing that was published" in page.text  # FVD16[shanshui-clip]
    assert "not measured" in page.text  # the reference has no distance from itself
    assert "SOFP quadratic" in page.text
    assert len(page.of_class("whisker")) == len(SYSTEMS) + 7 * 4


def test_the_page_loads_nothing_and_lets_nothing_in(page):
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?:|url\(|@import", re.sub(r"base64,[^\"]+", "", page.html))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)


def test_names_and_prompts_are_text_and_never_html(page):
    assert "<b>hills" not in page.html and "ours & more" in page.text and "Hills & <lakes>" in page.text
    assert {card["data-prompt"] for card in page.of_class("card")} == set(PROMPTS)


def test_the_same_command_makes_the_same_page(measured, tmp_path):
    for name in ("a.html", "b.html"):
        assert run(measured, "--output", tmp_path / name).exit_code == 0
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_stays_under_its_limit_and_says_what_it_left_out(measured, tmp_path):
    whole = run(measured, "--output", tmp_path / "whole.html")
    assert whole.exit_code == 0 and re.fullmatch(r".+whole\.html: 0\.\d MB\n", whole.stdout)
    size = (tmp_path / "whole.html").stat().st_size
    result = run(measured, "--output", tmp_path / "small.html", "--max-size", (size - 20_000) / 1e6)
    assert result.exit_code == 0
    assert "2 of 3 prompts are shown" in result.stderr
    small = (tmp_path / "small.html").read_text(encoding="utf-8")
    assert "2 of 3 prompts are shown" in Page(small).text and small.count("<video") == 2 * len(SYSTEMS)
    assert len(small.encode()) < size - 20_000


def test_long_prompts_do_not_lift_a_page_over_its_limit(tmp_path):
    prompts = tuple(f"{number} " + "山水&" * 300 for number in range(8))
    write_measured(tmp_path, prompts, systems=("rival",), num_frames=2)
    result = run(tmp_path, "--output", tmp_path / "page.html", "--max-size", 0.15)
    assert result.exit_code == 0 and re.search("[1-7] of 8 prompts are shown", result.stderr)
    assert (tmp_path / "page.html").stat().st_size <= 150_000


def test_a_page_of_numbers_needs_no_clips(measured, tmp_path):
    (tmp_path / "results.json").write_bytes((measured / "results.json").read_bytes())
    result = run(tmp_path, "--output", tmp_path / "page.html")
    assert result.exit_code == 2 and "make a page without clips" in result.stderr
    assert not (tmp_path / "page.html").exists()
    assert run(tmp_path, "--output", tmp_path / "page.html", "--clips-per-prompt", 0).exit_code == 0
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "The clips were left out." in page.text and not page.all("video")


def test_of_several_samples_the_first_are_shown(tmp_path):
    write_measured(tmp_path, PROMPTS[:1], samples=3)
    for number, words in ((1, "the first clip is shown, not the best"), (2, "the first 2 clips are shown")):
        result = run(tmp_path, "--output", tmp_path / "page.html", "--clips-per-prompt", number)
        assert result.exit_code == 0 and words in result.stderr
        page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
        assert len(page.all("video")) == number * len(SYSTEMS)
        assert "seed 7" in page.text and ("seed 8" in page.text) == (number == 2)


def test_long_and_large_clips_are_cut_and_shrunk(tmp_path):
    write_measured(tmp_path, PROMPTS[:1], num_frames=70, systems=("rival",))
    result = run(tmp_path, "--output", tmp_path / "page.html", "--clip-width", 40)
    assert result.exit_code == 0 and "Long clips are cut" in result.stderr
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "64 frames, 8 a second, cut to 8.0 s" in page.text
    (tmp_path / "clip.mp4").write_bytes(decode(page.all("video")[0]["src"], "video/mp4"))
    assert read_video(tmp_path / "clip.mp4").frames.shape == (64, 30, 40, 3)


def test_many_prompts_of_the_reference_alone_are_not_all_shown(tmp_path):
    a = write_measured(tmp_path / "a", PROMPTS[:1], systems=("ours & more", "rival"), num_frames=2)
    b = write_measured(tmp_path / "b", tuple(f"painting {n}" for n in range(11)), systems=("reference",), num_frames=2)
    result = run(a, b, "--output", tmp_path / "page.html")
    assert result.exit_code == 0 and "8 of the 11 clips that only reference has are shown." in result.stderr
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("<video") == 2 + 8


def test_clips_without_a_prompt_are_a_group_of_their_own_and_stand_last(tmp_path):
    write_measured(tmp_path, ("", *PROMPTS[:1]), systems=("ours & more", "reference"), num_frames=2, samples=9)
    result = run(tmp_path, "--output", tmp_path / "page.html")
    assert result.exit_code == 0
    assert "8 of the 9 clips of reference without a prompt are shown." in result.stderr
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    prompts = [card["data-prompt"] for card in page.of_class("card")]
    assert prompts == [PROMPTS[0]] * 2 + ["Clips without a prompt"] * 16


def test_several_runs_stand_on_one_page_and_differences_of_protocol_are_said(tmp_path):
    a = write_measured(tmp_path / "a", PROMPTS[:1])
    b = write_measured(tmp_path / "b", PROMPTS[:1], PROTOCOL | {"seed": "8", "clips": "b 1"}, shift=0.01)
    same = write_measured(tmp_path / "same", PROMPTS[:1])
    assert run(a, same, "--output", tmp_path / "page.html").exit_code == 0
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "4 systems" in page.text and "not measured in the same way" not in page.text
    assert run(a, b, b, "--output", tmp_path / "page.html").exit_code == 0
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "8 systems" in page.text and "ours & more (b)" in page.text
    assert "These files were not measured in the same way. They differ in: seed." in page.text


def test_a_report_does_not_wait_for_torch():
    code = "import sys, landscape_video.evaluation.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none: no such file"),
        (["broken"], "not a results file of `landscape-video evaluate`"),
        (["good", "--output", "page.pdf"], "page.pdf: the name of a page must end in .html."),
        (["good", "--output", "none/page.html"], "no such folder none"),
        (["good", "--output", "folder.html"], "folder.html: must be a file, got a folder."),
        (["good", "--sofp", "none.json"], "none.json: no such file"),
        (["good", "--sofp", "good/results.json"], "not a results file of benchmarks/sofp.py"),
        (["good", "--max-size", "nan"], "--max-size"),
        (["good", "--max-size", "0"], "--max-size"),
        (["good", "--clip-width", "4"], "--clip-width"),
        (["good", "--clips-per-prompt", "-1"], "--clips-per-prompt"),
        (["damaged"], "0000.mp4"),
        (["verbose", "--max-size", "0.1"], "`max_bytes` must be at least 0."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_measured(Path("good"), PROMPTS[:1], systems=("rival",))
    write_measured(Path("damaged"), PROMPTS[:1], systems=("rival",))
    Path("damaged/system-0/0000.mp4").write_bytes(b"no video")
    write_measured(Path("verbose"), PROMPTS[:1], {"weights": "x" * 200_000}, systems=("rival",))
    Path("broken").mkdir()
    Path("broken/results.json").write_text("{}")
    Path("folder.html").mkdir()
    before = sorted(Path().rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("landscape-video: ")]
    assert len(errors) == 1 and message in errors[0] and "Traceback" not in result.stderr
    assert result.stdout == "" and sorted(Path().rglob("*")) == before
