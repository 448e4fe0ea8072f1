"""Tools that build and measure shanshui-tiny, the bundled model family."""
