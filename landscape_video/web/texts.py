"""The words of the page, in English and Chinese.

Fixed words (labels, buttons) are translated by the browser through `gr.I18n`. Messages that the server composes are
written in the language that `language_of` finds in a request.
"""

import gradio as gr

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
    "preset": ("Quality", "质量"),
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
    "estimate": ("Takes about {seconds} s and {memory}.", "约需 {seconds} 秒，内存 {memory}。"),
    "unknown_words": ("The model was not trained on: {words}.", "模型未学过这些词：{words}。"),
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

i18n = gr.I18n(
    **{
        locale: {
            **{key: pair[index] for key, pair in TEXTS.items()},
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
