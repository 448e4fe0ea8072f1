"""Read the data in a page of the user study."""

import json
import re
from pathlib import Path


def page_data(folder: Path) -> dict:
    html = (folder / "index.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])
