"""The orders in which projects number the classes, and the files that they write them in."""
