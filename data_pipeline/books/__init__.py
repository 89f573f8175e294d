"""Books: encodings, headers and footers, wrapped lines, EPUB and HTML."""
