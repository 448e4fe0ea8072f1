"""Measurements of shanshui-tiny against rendered clips."""
