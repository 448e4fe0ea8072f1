"""Write Markdown tables that no cell can break."""

from motion_adapter.markdown import markdown_table


def test_cells_that_would_break_the_table_are_escaped():
    assert markdown_table(["", "a|b"], [[1, "two\nlines"]]) == "|  | a\\|b |\n|---|---|\n| 1 | two lines |"
