"""Write the outcome of `upstream.sh` as a table, with each test that passes on the stock class but not on ours.

python summarize.py FOLDER-WITH-JUNIT-FILES RESULTS.md COMMIT
"""

import platform
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree


VARIANTS = {
    "stock": "`AnimateDiffPipeline`, untouched",
    "full": "`LandscapeVideoPipeline`, stock adapter, interpolating",
    "previous": "`LandscapeVideoPipeline`, sparse-causal mode `previous`, interpolating",
}
OUTCOMES = ("passed", "skipped", "failed")


def outcomes_in(junit: Path) -> dict[str, str]:
    """Return the outcome of each test, by `file::test`."""
    outcomes = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        outcome = "passed"
        if case.find("skipped") is not None:
            outcome = "skipped"
        elif case.find("failure") is not None or case.find("error") is not None:
            outcome = "failed"
        outcomes[f"{case.get('classname').split('.')[-1]}::{case.get('name')}"] = outcome
    return outcomes


def skipped_in(junit: Path) -> Counter[str]:
    """Count the skipped tests by reason."""
    cases = ElementTree.parse(junit).iter("testcase")
    return Counter(case.find("skipped").get("message") for case in cases if case.find("skipped") is not None)


def main(folder: Path, results: Path, commit: str) -> None:
    by_variant = {variant: outcomes_in(folder / f"{variant}.xml") for variant in VARIANTS}
    lines = ["| class | " + " | ".join(OUTCOMES) + " |", "|---|" + "---|" * len(OUTCOMES)]
    for variant, label in VARIANTS.items():
        count = Counter(by_variant[variant].values())
        lines.append(f"| {label} | " + " | ".join(str(count[outcome]) for outcome in OUTCOMES) + " |")
    stock = by_variant["stock"]
    lines += ["", "Failing on the stock class, too:", ""]
    lines += [f"- `{test}`" for test, outcome in sorted(stock.items()) if outcome == "failed"] or ["- none"]
    lines += ["", "Passing on the stock class but not on ours:", ""]
    lost = [
        f"- `{test}` ({variant})"
        for variant, outcomes in by_variant.items()
        for test in sorted(stock)
        if stock[test] == "passed" and outcomes.get(test) != "passed"
    ]
    lines += lost or ["- none"]
    lines += ["", "Skipped by the tests themselves, on the stock class:", ""]
    lines += [f"- {count} of them: {reason}" for reason, count in skipped_in(folder / "stock.xml").most_common()]
    versions = ", ".join(f"{name} {version(name)}" for name in ("diffusers", "transformers", "torch", "peft"))
    lines += ["", f"Tests of diffusers at {commit[:10]}, run with {versions}, Python {platform.python_version()}."]

    # Keep the text above the first table: it gives the reasons, and is written by hand.
    head = results.read_text(encoding="utf-8").split("| class |")[0] if results.exists() else "# diffusers' tests\n\n"
    results.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
