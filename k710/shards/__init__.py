"""Shards: which clips stand in which tar, writing them, and the index that training reads."""
