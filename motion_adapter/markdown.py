"""Write Markdown tables."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table, without a newline after the last row.

    Args:
        header: One title for each column; "" for a column without a title.
        rows: One cell for each column. Cells are converted to text; line breaks become spaces and `|` is escaped.
    """
    head, *lines = (f"| {' | '.join(escape(cell) for cell in row)} |" for row in (header, *rows))
    return "\n".join([head, "|" + "---|" * len(header), *lines])


def escape(cell: object) -> str:
    """Format anything as one line of text that cannot break a table."""
    return " ".join(str(cell).split()).replace("|", "\\|")
