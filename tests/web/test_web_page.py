"""The page as programs see it: endpoints, limits, and what it never gives away."""

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from pipeline_landscape_video.video_io import probe_video, read_metadata, write_video


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
    assert set(endpoints["named_endpoints"]) == {"/generate", "/interpolate", "/repeat"}
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


def file_of(value: object) -> Path:
    return Path(value["video"] if isinstance(value, dict) else value)


def test_a_clip_is_repeated_from_its_file(client):
    clip, _ = client.predict("a boat", num_frames=4, steps=2, seed="3", interpolate=False, api_name="/generate")
    again, recipe = client.predict(handle_file(file_of(clip)), None, api_name="/repeat")
    assert recipe["prompt"] == "a boat" and recipe["seed"] == 3
    assert file_of(again).read_bytes() == file_of(clip).read_bytes()


def test_a_clip_of_the_native_decoder_is_repeated_with_it(client, page, monkeypatch):
    clip, _ = client.predict("a boat", num_frames=4, steps=2, seed="3", interpolate=False, api_name="/generate")
    monkeypatch.setattr(page.shop.text_pipeline(), "frame_decoder", torch.nn.Identity())
    again, recipe = client.predict(handle_file(file_of(clip)), None, api_name="/repeat")
    assert recipe["decoder"] == "native"
    assert file_of(again).read_bytes() == file_of(clip).read_bytes()


def test_a_recipe_cannot_choose_models_or_pass_limits(client, page, tmp_path):
    frames, ours = np.zeros((2, 16, 16, 3)), {"model": page.shop.models.model}
    for name, metadata, message in (
        ("other.mp4", {"prompt": "a", "seed": 1, "model": "somebody/other"}, "somebody/other"),
        ("lora.mp4", {"prompt": "a", "seed": 1, "lora": ["/etc/passwd"], **ours}, "was made with"),
        ("long.mp4", {"prompt": "a", "seed": 1, "num_frames": 10**9, **ours}, "at most 8"),
        ("none.mp4", {}, "holds no recipe"),
    ):
        write_video(tmp_path / name, frames, 8, metadata)
        with pytest.raises(AppError, match=message):
            client.predict(handle_file(tmp_path / name), None, api_name="/repeat")


def test_a_video_is_interpolated(client, tmp_path):
    write_video(tmp_path / "river.mp4", np.random.default_rng(0).random((4, 32, 32, 3)), 8)
    smooth, metadata = client.predict(handle_file(tmp_path / "river.mp4"), 1, api_name="/interpolate")
    assert probe_video(file_of(smooth)).num_frames == 7
    assert metadata["interpolation"]["times"] == 1


def test_files_that_are_no_videos_are_refused_by_their_name(client, page, tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(AppError, match=r"notes\.mp4") as caught:
        client.predict(handle_file(tmp_path / "notes.mp4"), 1, api_name="/interpolate")
    assert str(page.uploads) not in str(caught.value)


@pytest.mark.parametrize("path", ["/etc/passwd", str(Path(__file__))])
def test_a_request_cannot_name_a_file_of_the_server(client, path):
    with pytest.raises(AppError):
        client.predict({"path": path, "meta": {"_type": "gradio.FileData"}}, None, api_name="/repeat")


def test_an_assistant_calls_the_page(page):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def call() -> tuple[dict, str]:
        async with streamablehttp_client(f"{page.url}gradio_api/mcp/") as (read, write, _):
            async with ClientSession(read, write) as session:
                await session.initialize()
                tools = {tool.name: tool for tool in (await session.list_tools()).tools}
                assert set(tools) == {"generate", "interpolate", "repeat"}
                arguments = {"prompt": "misty mountains", "num_frames": 4, "steps": 1, "seed": "1"}
                result = await session.call_tool("generate", arguments)
                return tools["generate"].inputSchema, " ".join(getattr(part, "text", "") for part in result.content)

    schema, said = asyncio.run(call())
    assert "Denoising steps" in schema["properties"]["steps"]["description"]
    assert ".mp4" in said and '"seed"' in said.replace("'", '"')
