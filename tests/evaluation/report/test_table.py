"""The table of an evaluation: arrows, spreads, the best in bold, and how it was measured."""

from landscape_video.evaluation.results import ClipResult, MetricValue, Results, System, markdown


def system(name: str, kind: str, metrics: dict[str, MetricValue], **costs: float) -> System:
    return System(name, kind, metrics, (ClipResult("mist", "a.mp4"),), **costs)


RESULTS = Results(
    {"CLIP": "a|b\nc"},
    (
        system(
            "ours",
            "generated",
            {
                "CLIP-temp": MetricValue(0.98765, 0.9, 1.0, "higher"),
                "FVD16[x]": MetricValue(1234.5, None, None, "lower"),
            },
            seconds_per_clip=12.345,
        ),
        system(
            "a|b",
            "folder",
            {"CLIP-temp": MetricValue(0.9, better="higher"), "FVD16[x]": MetricValue(99.5, better="lower")},
        ),
        system(
            "still",
            "still",
            {"CLIP-temp": MetricValue(1.0, better="higher"), "speed": MetricValue(0.0, unit="pixels")},
        ),
    ),
)


def test_the_table():
    header, line, ours, other, still, *protocol = markdown(RESULTS).splitlines()
    assert header == (
        "| system (clips) | CLIP-temp ↑ | FVD16[x] ↓ | speed, pixels | seconds per clip | peak memory, GiB |"
    )
    assert line == "|---|---|---|---|---|---|"
    # A still frame is ahead in CLIP-temp, and takes no part.
    assert ours == "| ours (1) | **0.9877** [0.9000, 1.000] | 1234 | - | 12.35 | - |"
    assert other == "| a\\|b (1) | 0.9000 | **99.50** | - | - | - |"
    assert still == "| still (1) | 1.000 | - | 0.000 | - | - |"
    assert protocol == ["", "Measured as follows:", "", "- CLIP: a\\|b c"]


def test_one_system_alone_is_no_winner():
    assert "**" not in markdown(Results({}, RESULTS.systems[:1]))
