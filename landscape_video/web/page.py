"""Build the page from its tabs, and serve it."""

from pathlib import Path
from typing import Any

import gradio as gr

from landscape_video.web.file_tabs import about_tab, gallery_tab, interpolate_tab
from landscape_video.web.image_tab import image_tab
from landscape_video.web.repeat_tab import repeat_tab
from landscape_video.web.text_tab import text_tab
from landscape_video.web.texts import i18n, translations
from landscape_video.web.workshop import Workshop


FILES = Path(__file__).parent / "files"
# In the order that the page shows them. A tab is a function of the page's state that builds it.
TABS = (text_tab, image_tab, interpolate_tab, repeat_tab, gallery_tab, about_tab)


def build_page(shop: Workshop) -> gr.Blocks:
    """Build the page. Nothing is sent to anyone: usage statistics of Gradio are off."""
    with gr.Blocks(title="Landscape video", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as page:
        with gr.Row(elem_classes="lv-header"):
            gr.Markdown(i18n("title"), elem_classes="lv-title")
            switch = gr.Button(i18n("switch_language"), size="sm", min_width=80, scale=0, elem_id="language")
        gr.Markdown(i18n("tagline"))
        with gr.Tabs():
            for add_tab in TABS:
                if shop.shared_gallery or add_tab is not gallery_tab:
                    add_tab(shop)
        switch.click(None, js="() => window.landscapeVideo.switchLanguage()", api_visibility="private")
    return page


def launch_page(shop: Workshop, **options: Any) -> tuple[Any, str, str]:
    """Serve the page, by default on this machine only.

    Args:
        options: Arguments of `gradio.Blocks.launch` that replace those of this function.
    """
    script = (FILES / "page.js").read_text(encoding="utf-8")
    defaults = {
        "server_name": "127.0.0.1",
        "share": False,
        "max_file_size": shop.limits.upload_mb * 10**6,
        "allowed_paths": [str(shop.clips.absolute())],
        "i18n": translations(shop.camera_success),
        "head": f"<script>{script}</script>",
        "css_paths": FILES / "page.css",
        "footer_links": ["api"],
        "run_history": False,  # else every prompt would be kept in the visitor's browser
        "ssr_mode": False,  # needs Node
        "quiet": True,
    }
    page = build_page(shop)
    page.queue(max_size=32)
    return page.launch(**defaults | options)
