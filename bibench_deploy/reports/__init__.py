"""Turn measurements and findings into text, JSON, Markdown and HTML."""
