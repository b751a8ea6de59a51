"""Recipes: one TOML file each, complete on its own."""
