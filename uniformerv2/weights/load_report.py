"""What became of every entry of a checkpoint, and of every key of the model that it was loaded into."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What became of every entry of a checkpoint and of every key of the model; as text, a few readable lines."""

    taken: tuple[str, ...]
    """Keys of the model that were filled from the checkpoint, in the model's order."""
    ignored: tuple[tuple[str, str], ...] = ()
    """Entries of the checkpoint that were left out, each with the reason."""
    prefix: str = ""
    """Prefix that was taken off every key, such as ``module.backbone.``."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Entries of the checkpoint (without prefix) that have another name here, each with the key they fill."""
    folded: tuple[tuple[str, str], ...] = ()
    """Entries of the checkpoint that became part of another key, each with what was done, exactly."""
    resized: tuple[str, ...] = ()
    """Those of ``taken`` that were interpolated to another patch grid."""
    inflated: tuple[str, ...] = ()
    """Those of ``taken`` whose image weights were given a time axis."""
    fresh: tuple[str, ...] = ()
    """Keys of the model that keep their initial value, because the checkpoint is of a smaller model."""

    def __str__(self) -> str:
        counts = [(self.renamed, "renamed"), (self.resized, "resized"), (self.inflated, "inflated")]
        of_taken = ", ".join(f"{len(keys)} {word}" for keys, word in counts if keys)
        lines = [f"{len(self.taken)} taken" + (f" ({of_taken})" if of_taken else "")]
        if self.prefix:
            lines.append(f"prefix {self.prefix!r} stripped")
        for entries, word in ((self.folded, "folded"), (self.ignored, "ignored")):
            reasons = Counter(reason for _, reason in entries)
            lines += [f"{count} {word}: {reason}" for reason, count in reasons.items()]
        if self.fresh:
            groups = Counter(_group(key) for key in self.fresh)
            lines.append(f"{len(self.fresh)} left fresh: " + ", ".join(f"{group} ({n})" for group, n in groups.items()))
        return "\n".join(lines)


def _group(key: str) -> str:
    """The part of the model that a key belongs to: ``transformer.dec``, ``lmhra1``, ``transformer.proj``."""
    parts = key.split(".")
    if any(part.startswith("lmhra") for part in parts):
        return next(part for part in parts if part.startswith("lmhra"))
    return ".".join(parts[:2]) if parts[0] == "transformer" else parts[0]
