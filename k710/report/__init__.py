"""Reports: tables to JSON, Markdown and figures."""
