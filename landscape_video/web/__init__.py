"""The web page: generate, animate and interpolate clips in a browser, in English and Chinese."""
