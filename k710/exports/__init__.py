"""Lists and indexes of a build that other tools read: one file for each family of formats."""
