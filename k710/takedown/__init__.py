"""Videos taken out of a build for good, from its own tables: no annotation file is needed."""
