"""Names of the real clips and of the videos of a small build in which some clips look the same."""

from __future__ import annotations

SKATERS, DANCERS, SLOW = "kinetics_340x256_28fps.mp4", "kinetics_426x320_30fps.mp4", "mpeg4_320x240_audio.avi"
TWIN = "h264_340x256_6fps.mp4"
"""The scene of ``SKATERS``, at another rate and with boxes burned in."""

LEAKED = "leaked_0001"
"""A video that is trained on, of which a held-out one is a copy."""
COPY = "copy_val_01"
"""That copy: a second later, smaller, and encoded badly."""
MIRRORED = "mirror_tr_1"
"""Its mirror image, trained on in another release."""
ALONE = "alone_tr_01"
"""A video like no other."""
TWICE = "twice_tr_01"
"""A video with two segments that look the same and share no second."""
