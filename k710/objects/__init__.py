"""Builds on object stores: writing objects, claims on them, and the local folder that a build works in."""
