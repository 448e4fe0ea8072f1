"""Labels of the settings on the page, in English and Chinese, and their explanations.

The English explanations are the help texts of `landscape_video.generation.settings`; the Chinese ones translate them.
A test compares the names with the fields.
"""

from dataclasses import fields

from landscape_video.generation.settings import ImageToVideoSettings


# setting: (English label, Chinese label, Chinese explanation)
_WORDS = {
    "negative_prompt": ("Negative prompt", "反向提示词", "不希望画面中出现的内容。"),
    "num_frames": ("Frames", "帧数", "采样的帧数。"),
    "height": ("Height", "高度", "画面高度（像素），须为 8 的倍数。"),
    "width": ("Width", "宽度", "画面宽度（像素），须为 8 的倍数。"),
    "steps": ("Steps", "步数", "去噪步数：越多越慢，细节越丰富。"),
    "guidance_scale": ("Guidance scale", "引导强度", "遵循提示词的程度；不大于 1 时反向提示词无效。"),
    "preset": (
        "Quality",
        "质量",
        "互相匹配的采样器、步数与引导：draft 为 4 步（有少步权重时不用引导），standard 为 10 步，fine 为 50 步；"
        "其余两项用于 AnimateLCM 与 AnimateDiff-Lightning。",
    ),
    "seed": ("Seed", "随机种子", "噪声的种子：同一种子得到同一视频。留空则随机抽取。"),
    "eta": ("Fresh noise (eta)", "新增噪声（eta）", "DDIM 每一步新增噪声的比例：0 为 DDIM，1 为 DDPM。"),
    "interpolate": ("Interpolate", "补帧", "每两帧之间补一帧：N 帧变为 2N - 1 帧。"),
    "fps": ("Frames per second", "帧率", "视频每秒的帧数。留空则为 16，不补帧时为 8。"),
    "sofp_mode": (
        "Position between frames",
        "中间帧位置",
        "像素在两帧之间的位置：沿运动抛物线（quadratic）、按 NADM 公式 14 的比例（projection）或匀速（linear）。",
    ),
    "flow": ("Optical flow", "光流估计", "RAFT（本机须已有其权重）或 OpenCV 的 DIS（无需权重）。"),
    "context_length": ("Window", "窗口长度", "一起采样的帧数；更长的视频分为相互重叠的窗口采样。"),
    "context_overlap": ("Overlap", "窗口重叠", "相邻窗口共有的帧数。"),
    "context_schedule": ("Windows", "窗口移动", "每一步移动窗口以隐去接缝（moved），或保持不动（static）。"),
    "context_weights": ("Weights in overlaps", "重叠处权重", "窗口中部的帧权重最大（pyramid），或各帧相等（flat）。"),
    "closed_loop": ("Closed loop", "首尾相接", "结尾接回开头，循环播放时没有跳变。"),
    "transition": ("Transition", "过渡帧数", "随时间变化的提示词之间过渡的帧数；0 为立即切换。"),
    "prompt_per_window": ("One prompt per window", "每窗口一个提示词", "每个窗口用一个提示词，而不是逐帧混合。"),
    "fit": ("Fit of the image", "图片适配", "裁去两侧，或以白色补边；不会变形。"),
    "image_guidance_scale": ("Image guidance scale", "图片引导强度", "遵循图片的程度：越高越像原图，反差也越大。"),
    "guidance_order": (
        "Guidance order",
        "引导次序",
        "先图片（InstructPix2Pix 公式 3，适合只写动态的短提示词）或先文字（DreamVideo 公式 5，适合完整描述）。",
    ),
    "retention_scale": ("Image retention scale", "图像保持强度", "图像保持分支残差的权重；0 则忽略图片。"),
    "hold_first_frame": ("Keep the first frame", "固定首帧", "每段的首帧尽量保持为所给图片。"),
    "drop_duplicate_frame": ("Drop the repeated frame", "去掉重复帧", "去掉后续各段与前一段末帧重复的首帧。"),
    "match_stage_colors": ("Match colors of stages", "统一各段颜色", "使后续各段的颜色与其起始帧一致。"),
}


def _explanation(name: str) -> str:
    return next(each.metadata["help"] for each in fields(ImageToVideoSettings) if each.name == name)


# setting: ((English label, Chinese label), (English explanation, Chinese explanation))
FIELD_TEXTS = {name: ((en, zh), (_explanation(name), info_zh)) for name, (en, zh, info_zh) in _WORDS.items()}
