"""Pages for a browser, one module for each page."""
