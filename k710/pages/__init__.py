"""Pages of HTML that stand alone: one file, nothing loaded from anywhere, every value escaped."""
