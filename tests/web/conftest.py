"""A page that runs on a small model, for the tests of the page."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest


pytest.importorskip("gradio", reason="gradio is not installed; the extra `web` brings it")


@pytest.fixture(scope="session")
def shop(models, tmp_path_factory):
    """The state of a page with a text-to-video model of 64 x 64 pixels."""
    from landscape_video.generation.settings import ImageModelSettings
    from landscape_video.web.controls import Limits
    from landscape_video.web.workshop import Workshop

    models = ImageModelSettings(model=str(models / "video"), device="cpu")
    return Workshop(models, tmp_path_factory.mktemp("clips"), Limits(frames=8, side=64, steps=4, prompt=200))


@pytest.fixture(scope="session")
def page(shop, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The running page: its `url`, its `shop`, and the folder of `uploads`."""
    from landscape_video.web.page import launch_page

    uploads = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        patch.setenv("HF_TOKEN", "hf_secret_of_the_owner")
        app, url, _ = launch_page(shop, prevent_thread_lock=True, mcp_server=True)
        yield SimpleNamespace(url=url, shop=shop, uploads=Path(uploads), app=app)
        app.blocks.close()
