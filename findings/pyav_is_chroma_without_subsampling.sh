#!/usr/bin/env bash
# Guess: `is_chroma` of a PyAV video format component tells whether the component holds color differences.
#
# What happens: it tells whether the component is a color difference and smaller than the frame. In 4:4:4 it is 0 for
# all three, though `is_luma` is True for the first alone.
#
# Seen with PyAV 18.1.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0
"$work/venv/bin/python" - <<'PYTHON'
import av

found = {}
for name in ("yuv420p", "yuv422p", "yuv444p", "yuv444p10le", "gbrp"):
    components = av.VideoFormat(name).components
    found[name] = [bool(component.is_chroma) for component in components]
    print(name, "is_chroma:", *found[name], " is_luma:", *(component.is_luma for component in components))
assert found["yuv420p"] == [False, True, True]
assert found["yuv444p"] == found["yuv444p10le"] == [False, False, False]
PYTHON
