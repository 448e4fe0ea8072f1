"""The words of the page, in English and Chinese.

Fixed words (labels, buttons) are translated by the browser through `gr.I18n`. Messages that the server composes are
written in the language that `language_of` finds in a request.
"""

from collections.abc import Mapping

import gradio as gr
from gradio.i18n import I18nData

from landscape_video.web.field_texts import FIELD_TEXTS


LANGUAGES = ("en", "zh")
# Set by the page's switch; read by the server and, before Gradio starts, by `page.js`.
LANGUAGE_COOKIE = "landscape_video_language"

# key: (English, Chinese)
TEXTS = {
    "title": ("Landscape video", "山水视频"),
    "tagline": (
        "Type what the painting shows and how it moves. The model runs on this machine; nothing leaves it.",
        "写下画中的景物与动静，即可生成山水动画。模型在本机运行，数据不外传。",
    ),
    "tab_text": ("Text to video", "文字生成视频"),
    "tab_image": ("Animate an image", "让画动起来"),
    "tab_interpolate": ("Smooth a video", "视频补帧"),
    "tab_repeat": ("Repeat a clip", "复现视频"),
    "tab_gallery": ("Gallery", "作品集"),
    "tab_about": ("About", "关于"),
    "prompt": ("Prompt", "提示词"),
    "prompt_hint": (
        "mist drifting over layered mountains, a boat on a calm lake",
        "水墨山水，云雾向左飘，湖上一叶孤舟",
    ),
    "palette": ("Palette", "色彩"),
    "camera": ("Camera", "镜头"),
    "palette_ink": ("Ink", "水墨"),
    "palette_blue_green": ("Blue-green", "青绿"),
    "palette_autumn": ("Autumn", "秋色"),
    "palette_snow": ("Snow", "雪景"),
    "palette_dawn": ("Dawn", "朝霞"),
    "camera_still": ("Still", "静止"),
    "camera_left": ("Left", "左移"),
    "camera_right": ("Right", "右移"),
    "camera_closer": ("Closer", "推近"),
    "camera_away": ("Away", "拉远"),
    "draft": ("Draft", "草稿"),
    "standard": ("Standard", "标准"),
    "fine": ("Fine", "精细"),
    "advanced": ("Advanced settings", "高级设置"),
    "generate": ("Generate", "生成"),
    "cancel": ("Cancel", "取消"),
    "clip": ("Clip", "视频"),
    "recipe": ("Prompt, seed and settings of this clip", "本视频的提示词、种子与参数"),
    "examples": ("Examples: one click generates", "示例：点击即生成"),
    "switch_language": ("中文", "English"),
    "ready": ("Ready.", "就绪。"),
    "waiting": ("Waiting: another clip is being made.", "排队中：正在生成另一个视频。"),
    "loading": ("Loading the model.", "正在加载模型。"),
    "step": ("Step {step} of {steps}", "第 {step} 步，共 {steps} 步"),
    "remaining": ("about {seconds} s left", "约剩 {seconds} 秒"),
    "finishing": ("Decoding and interpolating.", "正在解码与补帧。"),
    "done": ("Done in {seconds} s. Seed {seed}.", "完成，用时 {seconds} 秒。种子 {seed}。"),
    "cancelled": ("Canceled.", "已取消。"),
    "estimate": ("Takes about {seconds} s and {memory} of memory.", "约需 {seconds} 秒，内存约 {memory}。"),
    "unknown_words": ("The model was not trained on: {words}.", "模型未学过这些词：{words}。"),
    "stages_prompt": ("What moves, and how: one line for each stage", "画中如何运动：每行一段"),
    "painting": ("Image", "图片"),
    "fitted": ("As the model sees it", "模型所见"),
    "animate": ("Animate", "生成动画"),
    "source_video": ("Video", "视频文件"),
    "times": ("Frame rate", "帧率倍数"),
    "smooth": ("Smooth", "补帧"),
    "made": ("Done in {seconds} s.", "完成，用时 {seconds} 秒。"),
    "percent": ("{percent} % done", "已完成 {percent}%"),
    "refresh": ("Refresh", "刷新"),
    "clip_file": (
        "Clip made by this program: .mp4, .gif, .webp or .png",
        "本程序生成的视频：.mp4、.gif、.webp 或 .png",
    ),
    "original_image": ("Image that the clip was made from", "生成视频所用的原图"),
    "repeat": ("Repeat", "复现"),
    "choose_clip": ("Select a clip to see its recipe.", "选择一个视频以查看其参数。"),
    "repeat_text": (
        "A clip is its recipe: drop one that was made here to make it again.",
        "视频即配方：拖入本程序生成的视频，即可重新生成。",
    ),
    "about_text": (
        "This page generates short landscape-painting videos. The bundled model, shanshui-tiny, has 128 x 128 pixels. "
        "It knows ink landscapes only: mountains, water, boats, mist, birds, pines, pavilions, sun and moon. "
        "Camera buttons show how often the model moves the camera as asked, measured on held-out prompts. "
        "Every clip stores its prompt, seed and settings. Your inputs are not kept in the browser, "
        "and nothing is sent to other machines.",
        "本页生成山水画短视频。内置模型 shanshui-tiny 的画面为 128 x 128 像素，只会画水墨山水："
        "山、水、舟、云雾、飞鸟、松、亭、日、月。镜头按钮上的百分比是在未参与训练的提示词上测得的成功率。"
        "每个视频都存有提示词、种子与参数。输入内容不会留在浏览器中，也不会发送到其他机器。",
    ),
    "identical": ("All frames are bit-identical to those of the file.", "所有帧与原文件逐位一致。"),
    "different": ("The frames differ. {reasons}", "画面与原文件不同。{reasons}"),
    "no_reason": ("Device, threads and versions are the same.", "设备、线程数与版本均相同。"),
    "error_image": ("An image is required.", "请上传图片。"),
    "error_video": ("A video is required.", "请上传视频。"),
    "error_clip": ("A clip is required.", "请上传视频。"),
    "error_stages": (
        "At most {limit} stages are possible on this page, got {count}.",
        "本页最多 {limit} 段，现在有 {count} 段。",
    ),
    "error_video_size": (
        "The video must have at most {frames} frames of {side} x {side} pixels, got {count} of {width} x {height}.",
        "视频最多 {frames} 帧、{side} x {side} 像素，现在是 {count} 帧、{width} x {height}。",
    ),
    "error_model": ("This page runs other models: the clip {reason}", "本页运行的是其他模型：该视频 {reason}"),
    "error_prompt": ("A prompt is required.", "请输入提示词。"),
    "error_prompt_length": (
        "The prompt must have at most {limit} characters, got {length}.",
        "提示词最多 {limit} 个字，现在有 {length} 个。",
    ),
    "error_limit": (
        "{label} must be at most {limit} on this page, got {value}.",
        "{label}在本页最多为 {limit}，现在是 {value}。",
    ),
    "error_number": ("{label} must be a number, got {value}.", "{label}须为数字，现在是 {value}。"),
    "automatic": ("automatic", "自动"),
    "error_memory": (
        "Out of memory. Lower Width, Height or Frames.",
        "内存不足。请减小宽度、高度或帧数。",
    ),
    "error_nan": (
        "The model computed values that are not numbers. Start the page with --dtype float32.",
        "模型算出了无效数值。请用 --dtype float32 启动页面。",
    ),
    "error_unforeseen": (
        "Something failed that should not. The terminal of the page shows the details.",
        "发生意外错误，详情见启动页面的终端。",
    ),
}

i18n = I18nData


def translations(success: Mapping[str, Mapping[str, float]]) -> gr.I18n:
    """All fixed texts of a page.

    Args:
        success: How often the model follows each camera move, for each language; added to the labels of the buttons.
    """
    texts = dict(TEXTS)
    for camera in {camera for rates in success.values() for camera in rates}:
        labels = zip(LANGUAGES, TEXTS[f"camera_{camera}"], strict=True)
        texts[f"camera_{camera}"] = tuple(f"{label} {success[language][camera]:.0%}" for language, label in labels)
    return _i18n_of(texts)


def _i18n_of(texts: Mapping[str, tuple[str, str]]) -> gr.I18n:
    return gr.I18n(
        **{
            locale: {
                **{key: pair[index] for key, pair in texts.items()},
                **{f"label_{name}": pair[0][index] for name, pair in FIELD_TEXTS.items()},
                **{f"info_{name}": pair[1][index] for name, pair in FIELD_TEXTS.items()},
            }
            for locale, index in (("en", 0), ("zh", 1), ("zh-CN", 1), ("zh-TW", 1), ("zh-HK", 1))
        }
    )


def language_of(request: gr.Request | None) -> str:
    """The language of a request: that of the page's switch, else the browser's first, else English."""
    if request is None:
        return "en"
    chosen = (request.cookies or {}).get(LANGUAGE_COOKIE)
    if chosen in LANGUAGES:
        return chosen
    return "zh" if request.headers.get("accept-language", "").lower().startswith("zh") else "en"


def say(key: str, language: str, **values: object) -> str:
    """A text in a language, with its fields filled in."""
    return TEXTS[key][LANGUAGES.index(language)].format(**values)


def label_of(name: str, language: str) -> str:
    """The label of a setting."""
    return FIELD_TEXTS[name][0][LANGUAGES.index(language)]
