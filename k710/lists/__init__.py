"""The lists of a build, as pure functions on tables: annotation files in, views and exclusions out. Offline."""
