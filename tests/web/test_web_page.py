"""The page as programs see it: endpoints, limits, and what it never gives away."""

from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from pipeline_landscape_video.video_io import probe_video, read_metadata


@pytest.fixture(scope="module")
def client(page, tmp_path_factory) -> Client:
    return Client(page.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


def test_a_program_generates_a_clip(client, page):
    clip, recipe = client.predict("misty mountains", num_frames=4, steps=2, seed="5", api_name="/generate")
    path = Path(clip["video"] if isinstance(clip, dict) else clip)
    assert probe_video(path).num_frames == 7
    metadata = read_metadata(path)
    assert (metadata["prompt"], metadata["seed"], metadata["steps"]) == ("misty mountains", 5, 2)
    assert recipe["seed"] == 5
    assert len(page.shop.saved_clips()) >= 1


def test_the_api_explains_every_setting(client):
    endpoint = client.view_api(return_format="dict")["named_endpoints"]["/generate"]
    names = [each["parameter_name"] for each in endpoint["parameters"]]
    assert names[0] == "prompt" and {"num_frames", "guidance_scale", "seed", "eta"} <= set(names)
    assert not {"flow_weights", "model", "lora", "motion_adapter", "device"} & set(names)
    assert "Generate a short landscape-painting video" in endpoint["description"]


def test_only_named_endpoints_are_public(client):
    endpoints = client.view_api(return_format="dict")
    assert set(endpoints["named_endpoints"]) == {"/generate"}
    assert not endpoints["unnamed_endpoints"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "  "}, "A prompt is required."),
        ({"prompt": "mist", "num_frames": 99}, "at most|greater than"),
        ({"prompt": "mist", "width": 4096}, "at most|greater than"),
        ({"prompt": "mist", "steps": 10**6}, "at most|greater than"),
        ({"prompt": "mist", "seed": "-1"}, "Seed must be"),
        ({"prompt": "mist", "flow": "raft"}, "raft"),
        ({"prompt": "mist" * 100}, "at most 200 characters|prompt"),
    ],
)
def test_wrong_input_is_a_message(client, values, message):
    with pytest.raises(AppError, match=message) as caught:
        client.predict(**values, api_name="/generate")
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("path", ["/etc/passwd", str(Path(__file__)), "../../../etc/passwd", "setup.py"])
def test_no_file_outside_the_page_is_served(page, path):
    answer = httpx.get(f"{page.url}gradio_api/file={path}")
    assert answer.status_code in (403, 404)


def test_clips_are_served(page, client):
    client.predict("misty mountains", num_frames=4, steps=1, api_name="/generate")
    answer = httpx.get(f"{page.url}gradio_api/file={page.shop.saved_clips()[0]}")
    assert answer.status_code == 200


def test_no_token_reaches_the_page(page):
    for address in ("", "config", "gradio_api/info", "gradio_api/startup-events"):
        assert "hf_secret" not in httpx.get(page.url + address).text


def test_only_this_machine_is_served(page):
    assert page.url.startswith("http://127.0.0.1:")
    assert page.app.blocks.share is False and page.app.blocks.share_url is None


def test_large_uploads_are_refused(page):
    content = b"x" * (page.shop.limits.upload_mb * 10**6 + 10**6)
    answer = httpx.post(f"{page.url}gradio_api/upload", files={"files": ("big.bin", content)}, timeout=60)
    assert answer.status_code == 413


def test_texts_are_given_in_both_languages(page):
    translations = httpx.get(f"{page.url}config").json()["i18n_translations"]
    assert translations["zh"]["generate"] == "生成" and translations["zh-CN"]["generate"] == "生成"
    assert translations["en"].keys() == translations["zh"].keys()


def test_messages_follow_the_language_of_the_browser(page):
    client = Client(page.url, verbose=False, headers={"accept-language": "zh-CN,zh;q=0.9"})
    with pytest.raises(AppError, match="请输入提示词"):
        client.predict("", api_name="/generate")
