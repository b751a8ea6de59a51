"""Audits of anybody's lists, folders of clips, shards and builds against each other."""
