"""Weights: published checkpoints, image transformers as a start, and head rows by class."""
