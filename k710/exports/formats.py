"""Every form that a build can be exported to; another one is a file and a line here."""

from __future__ import annotations

from k710.exports import croissant, energon, hugging_face, kinetics_csv, path_lists, wids
from k710.exports.job import Format

FORMATS: dict[str, Format] = {
    "mmaction2": path_lists.MMACTION2,
    "slowfast": path_lists.SLOWFAST,
    "uniformerv2": path_lists.UNIFORMERV2,
    "videomaev2": path_lists.VIDEOMAEV2,
    "vjepa2": path_lists.VJEPA2,
    "wids": wids.WIDS,
    "energon": energon.ENERGON,
    "hf": hugging_face.HF,
    "croissant": croissant.CROISSANT,
    "csv": kinetics_csv.CSV,
}
"""What `k710 export` takes."""
