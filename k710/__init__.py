"""Curation: from Kinetics annotation files and videos to verified, sharded Kinetics-710. Never imports torch."""

__version__ = "0.1.0"
