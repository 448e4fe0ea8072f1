"""The command line of benchmarks that only write a page of results."""

import argparse
from pathlib import Path


RESULTS = Path(__file__).resolve().parent / "results"


def parse_output(doc: str, name: str) -> Path:
    """
    Return the page to write.

    Args:
        doc: Docstring of the benchmark; the text before its first colon describes the command.
        name: File name of the default page in `results/`.
    """
    parser = argparse.ArgumentParser(description=doc.partition(":")[0])
    text = f"Markdown file to write (default: benchmarks/results/{name})"
    parser.add_argument("--output", type=Path, default=RESULTS / name, help=text)
    return parser.parse_args().output
