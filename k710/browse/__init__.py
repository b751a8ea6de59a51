"""A build as a folder of pages: who stands in which class of which view, what it looks like, and what has no bytes."""
