"""Contact sheets show both clips and the prompt."""

import numpy as np

from shanshui.measuring.measured_clips import contact_strip, write_contact_sheets


def test_contact_sheets(tmp_path):
    clips = [np.full((5, 64, 64, 3), 10 * k, np.uint8) for k in range(3)]
    strip = contact_strip("a text", clips[1], clips[2], None)
    assert (strip[:64, :256] == 10).all() and (strip[:64, 272:] == 20).all() and strip[64:].min() < 100
    write_contact_sheets(tmp_path, "zh", ["一叶孤舟"] * 3, clips, clips, rows=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts_zh.txt", "sheet_zh_1.png", "sheet_zh_2.png"]
    assert "2. 一叶孤舟" in (tmp_path / "prompts_zh.txt").read_text(encoding="utf-8")
