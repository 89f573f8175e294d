"""HTML pages: their blocks, what their names hint at, and the main text."""
