"""One clip from one of its candidate files: a function of its job alone, whose failures are outcomes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from k710.clips.media import EncodeConfig, Unusable, VideoFacts, probe, transcode
from k710.clips.sources.local import Candidate
from k710.segments import Segment

OK = "ok"
MISSING = "missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipJob:
    """What a worker needs to know to make one clip."""

    segment: Segment
    """Which part of which video."""
    candidates: tuple[Candidate, ...]
    """Files to try, best first."""
    target: Path
    """Where to write the mp4; whoever runs the job gives it its final name."""
    encode: EncodeConfig
    """How."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipOutcome:
    """What became of a clip."""

    key: str
    """The clip."""
    status: str
    """``ok``, or why there is none: ``missing``, ``ambiguous``, ``too_short`` or a status of ``media.Unusable``."""
    detail: str = ""
    """One line for people."""
    source: str = ""
    """Name of the file it is from; empty when there was none."""
    frames: int = 0
    """Frames in the clip."""
    fps: float = 0.0
    """Its constant frame rate."""
    width_px: int = 0
    """Its width."""
    height_px: int = 0
    """Its height."""
    codec: str = ""
    """Its codec."""
    size_bytes: int = 0
    """Size of the mp4."""
    sha256: str = ""
    """Of the mp4."""
    notes: tuple[str, ...] = ()
    """What was unusual about the source, and what was done about it."""
    tried: str = ""
    """Digest of the candidates' names, sizes and times: a failed clip is tried again when it changes."""


def make_clip(job: ClipJob) -> ClipOutcome:
    """Try the candidates in order; if none gives a clip, the first one's failure is the outcome."""
    tried = fingerprint(job.candidates)
    failures = []
    for candidate in job.candidates:
        outcome = _from_file(job, candidate)
        if isinstance(outcome, ClipOutcome):
            return outcome
        failures.append((candidate.name, outcome))
    if not failures:
        return ClipOutcome(key=job.segment.key, status=MISSING, tried=tried)
    name, first = failures[0]
    return ClipOutcome(key=job.segment.key, status=first.status, detail=first.detail, source=name, tried=tried)


def fingerprint(candidates: tuple[Candidate, ...]) -> str:
    """Digest of names, sizes and modification times; empty when there are no candidates."""
    if not candidates:
        return ""
    digest = hashlib.sha256()
    for candidate in candidates:
        try:
            stat = Path(candidate.path).stat()
            facts = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            facts = "gone"
        digest.update(os.fsencode(candidate.path) + f"\0{candidate.may_be_trimmed}\0{facts}\n".encode())
    return digest.hexdigest()[:16]


def _from_file(job: ClipJob, candidate: Candidate) -> ClipOutcome | Unusable:
    path = Path(candidate.path)
    try:
        # ffmpeg's argument list is text: a path that is none can be named in the report, but not opened.
        candidate.path.encode()
        facts = probe(path)
    except UnicodeEncodeError:
        return Unusable(status="unreadable", detail="its path is not UTF-8")
    except OSError as error:
        return Unusable(status="unreadable", detail=str(error.strerror))
    if isinstance(facts, Unusable):
        return facts
    cut = _cut(job.segment, candidate, facts)
    if isinstance(cut, Unusable):
        return cut
    failure = transcode(path, job.target, facts, job.encode, cut=cut)
    if failure is not None:
        return failure
    made = probe(job.target)
    if isinstance(made, Unusable):
        return Unusable(status="too_short" if cut else "encode_failed", detail=f"nothing was encoded ({made.status})")
    # A source that breaks off in the middle decodes without an error code, to fewer frames.
    if cut is None and not facts.variable_rate and made.frames < facts.frames - 1:
        return Unusable(status="truncated", detail=f"{made.frames} of {facts.frames} frames could be decoded")
    return _outcome(job, candidate, facts, made, cut)


def _cut(segment: Segment, candidate: Candidate, facts: VideoFacts) -> tuple[float, float] | Unusable | None:
    """None for a trimmed file; the range to cut from a whole video; or why the file is neither."""
    if candidate.timed:
        return None
    trimmed = facts.duration_s <= segment.duration_s + 1
    if trimmed and candidate.may_be_trimmed:
        return None
    if trimmed:
        return Unusable(status="ambiguous", detail="an untimed file that two segments of the video could claim")
    if facts.duration_s <= segment.start_s:
        return Unusable(
            status="too_short", detail=f"the video ends at {facts.duration_s:.1f} s, before the segment starts"
        )
    if facts.duration_s >= segment.end_s - 0.5:
        return segment.start_s, segment.end_s
    return Unusable(status="ambiguous", detail=f"{facts.duration_s:.1f} s is neither the clip nor the whole video")


def _outcome(
    job: ClipJob, candidate: Candidate, facts: VideoFacts, made: VideoFacts, cut: tuple[float, float] | None
) -> ClipOutcome:
    data = job.target.read_bytes()
    return ClipOutcome(
        key=job.segment.key,
        status=OK,
        source=candidate.name,
        frames=made.frames,
        fps=round(made.fps, 6),
        width_px=made.width_px,
        height_px=made.height_px,
        codec=made.codec,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        notes=_notes(job.segment, facts, made, cut),
        tried=fingerprint(job.candidates),
    )


def _notes(segment: Segment, facts: VideoFacts, made: VideoFacts, cut: tuple[float, float] | None) -> tuple[str, ...]:
    notes = {
        "cut from the whole video": cut is not None,
        f"shorter than its segment: {made.duration_s:.2f} s": made.duration_s < segment.duration_s - 0.5,
        "variable frame rate, now constant": facts.variable_rate,
        f"turned by {facts.rotation} degrees": facts.rotation != 0,
        "deinterlaced": facts.interlaced,
        f"was {facts.pixel_format}": facts.pixel_format not in ("yuv420p", "yuvj420p"),
    }
    return tuple(note for note, applies in notes.items() if applies)
