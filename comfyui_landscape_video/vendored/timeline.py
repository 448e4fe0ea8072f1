# Copied from pipeline_landscape_video/interpolation.py by vendor.py. Change the source instead.
"""Times of interpolated frames."""

from collections.abc import Sequence


def doubled_times(timestamps: Sequence[float], times: int) -> list[float]:
    """Return the given times and `2**times - 1` evenly between each two."""
    steps = [step / 2**times for step in range(2**times)]
    pairs = zip(timestamps, timestamps[1:], strict=False)
    return [start + t * (end - start) for start, end in pairs for t in steps] + [timestamps[-1]]
