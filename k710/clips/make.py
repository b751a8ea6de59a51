"""One clip from one of its candidate files: a function of its job alone, whose failures are outcomes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from k710.clips.cuts import cut_out, keep_all
from k710.clips.media import EncodeConfig, remux, transcode
from k710.clips.outcomes import (
    AMBIGUOUS,
    CORRUPT,
    MISSING,
    NEEDS_CUT,
    OK,
    PENDING,
    TOO_LARGE,
    TOO_SHORT,
    TRUNCATED,
    ClipOutcome,
    Unusable,
)
from k710.clips.probing import VideoFacts, probe
from k710.clips.sources.candidates import Brought, Candidate
from k710.clips.verify import Decoded, decode
from k710.segments import Segment

MAX_LONGER_S = 60.0
"""How much longer than its segment a file may be that is named as trimmed; people cut at keyframes, or leave a rim."""

_LOST_TO_ROUNDING = 3
_PLAIN = ("yuv420p", "yuvj420p")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipJob:
    """What a worker needs to know to make one clip."""

    segment: Segment
    """Which part of which video."""
    candidates: tuple[Candidate, ...]
    """Files to try, best first."""
    target: Path
    """Where to write the mp4; whoever runs the job gives it its final name. Nothing is written under ``none``."""
    encode: EncodeConfig
    """How."""
    before: tuple[Candidate, ...] = ()
    """Files of more preferred sources, which came to nothing; they count in what was tried."""
    archives: tuple[str, ...] = ()
    """What was read for it of sources that are read as a whole, by their identities; counts in what was tried."""
    failed: ClipOutcome | None = None
    """What came of ``before``; it stays the outcome if nothing gives a clip. None: there was nothing."""


def make_clip(job: ClipJob) -> ClipOutcome:
    """Try the candidates in order; if none gives a clip, the first failure is the outcome.

    A source that asks to wait ends it: what less preferred ones have is for clips that it is known not to have.
    """
    tried = tried_for(job)
    failures = [] if job.failed is None else [replace(job.failed, tried=tried, attempts=1)]
    for candidate in job.candidates:
        outcome = _from_candidate(job, candidate, tried)
        if isinstance(outcome, ClipOutcome):
            return outcome
        failure = ClipOutcome(
            key=job.segment.key,
            status=outcome.status,
            detail=outcome.detail,
            source=candidate.name,
            kind=candidate.kind,
            tried=tried,
        )
        if outcome.status == PENDING:
            return replace(failure, tried="")
        failures.append(failure)
    if not failures:
        return ClipOutcome(key=job.segment.key, status=MISSING, detail="no file is named after it", tried=tried)
    # That a file is wrong tells people more than that another source has none.
    return next((failure for failure in failures if failure.status != MISSING), failures[0])


def tried_for(job: ClipJob) -> str:
    """Digest of all that has been tried for the clip when the job is done."""
    return fingerprint((*job.before, *job.candidates), job.archives)


def fingerprint(candidates: tuple[Candidate, ...], archives: tuple[str, ...] = ()) -> str:
    """Digest of names, sizes and modification times, and of what archives are; empty when there is nothing.

    Files that a run has made for itself do not count: the archive that they are from does.
    """
    lasting = [candidate for candidate in candidates if not candidate.is_ours]
    if not lasting and not archives:
        return ""
    digest = hashlib.sha256()
    for candidate in lasting:
        claim = f"{candidate.may_be_trimmed}\0{candidate.videos_are}"
        digest.update(os.fsencode(candidate.path) + f"\0{claim}\0{_facts(candidate)}\n".encode())
    for archive in archives:
        digest.update(f"archive\0{archive}\n".encode())
    return digest.hexdigest()[:16]


def _facts(candidate: Candidate) -> str:
    """What tells a file from another of its name."""
    if candidate.origin is not None:
        return f"{candidate.kind} {candidate.origin.identity}"
    try:
        stat = Path(candidate.path).stat()
    except OSError:
        return "gone"
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _from_candidate(job: ClipJob, candidate: Candidate, tried: str) -> ClipOutcome | Unusable:
    if candidate.origin is None:
        return _from_file(job, candidate, Brought(path=Path(candidate.path)), tried)
    folder = Path(tempfile.mkdtemp(prefix=f"{job.target.stem}.", dir=job.target.parent))
    try:
        brought = candidate.origin.bring(folder)
        return brought if isinstance(brought, Unusable) else _from_file(job, candidate, brought, tried)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _from_file(job: ClipJob, candidate: Candidate, file: Brought, tried: str) -> ClipOutcome | Unusable:
    path = file.path
    try:
        # ffmpeg's argument list is text: a path that is none can be named in the report, but not opened.
        str(path).encode()
        facts = probe(path)
    except UnicodeEncodeError:
        return Unusable(status=CORRUPT, detail="its path is not UTF-8")
    except OSError as error:
        # Only an address can name a file that was never there.
        is_nowhere = candidate.kind == "url" and isinstance(error, FileNotFoundError)
        return Unusable(status=MISSING if is_nowhere else CORRUPT, detail=f"it cannot be read ({error.strerror})")
    if isinstance(facts, Unusable):
        return facts
    trimmed = _is_trimmed(job.segment, candidate, facts, file.begins_s)
    if isinstance(trimmed, Unusable):
        return trimmed
    if job.encode.needs_trimmed:
        if not trimmed:
            return Unusable(status=NEEDS_CUT, detail=f"a whole video, which `{job.encode.encode}` cannot cut")
        return _as_it_is(job, candidate, path, facts, tried)
    return _encoded(job, candidate, file, facts, tried, trimmed=trimmed)


def _is_trimmed(segment: Segment, candidate: Candidate, facts: VideoFacts, begins_s: float) -> bool | Unusable:
    """Whether a file is the clip, or else the whole video or a part of it; or why it is neither."""
    ends_s = begins_s + facts.end_s
    if begins_s:
        if ends_s <= segment.start_s:
            return Unusable(status=TOO_SHORT, detail=f"the video ends at {ends_s:.1f} s, before the segment starts")
        return False
    fits = facts.duration_s <= segment.duration_s + 1
    if candidate.timed or candidate.videos_are == "clips" or (candidate.videos_are == "auto" and fits):
        if not candidate.may_be_trimmed:
            return Unusable(status=AMBIGUOUS, detail="an untimed file that two segments of the video could claim")
        if facts.duration_s > segment.duration_s + MAX_LONGER_S:
            lasts = f"it lasts {facts.duration_s:,.0f} s, its segment {segment.duration_s:g} s"
            return Unusable(status=TOO_LARGE, detail=lasts)
        return True
    if facts.end_s <= segment.start_s:
        return Unusable(status=TOO_SHORT, detail=f"the video ends at {facts.end_s:.1f} s, before the segment starts")
    if facts.end_s >= segment.end_s - 0.5 or candidate.videos_are == "originals":
        return False
    return Unusable(status=AMBIGUOUS, detail=f"{facts.duration_s:.1f} s is neither the clip nor the whole video")


def _encoded(
    job: ClipJob, candidate: Candidate, file: Brought, facts: VideoFacts, tried: str, *, trimmed: bool
) -> ClipOutcome | Unusable:
    times = (facts.times_s, facts.tick_s, facts.declared_rate)
    segment = job.segment
    start_s, end_s = segment.start_s - file.begins_s, segment.end_s - file.begins_s
    cut = keep_all(*times) if trimmed else cut_out(*times, start_s=start_s, end_s=end_s)
    failure = transcode(file.path, job.target, facts, cut, job.encode)
    if failure is not None:
        return failure
    made = decode(job.target, "full")
    if isinstance(made, Unusable):
        return Unusable(status=CORRUPT, detail=f"what was encoded cannot be decoded ({made.detail or made.status})")
    # A source that breaks off in the middle decodes without an error code, to fewer frames.
    if made.frames < cut.num_frames - (_LOST_TO_ROUNDING if cut.variable else 1):
        return Unusable(status=TRUNCATED, detail=f"{made.frames} of {cut.num_frames} frames could be decoded")
    notes = {"cut from the whole video": not trimmed} | _common_notes(segment, made)
    notes |= {
        "variable frame rate, now constant": cut.variable,
        f"turned by {facts.rotation} degrees": facts.rotation != 0,
        f"pixels were {_ratio(facts)}, now square": facts.pixel_aspect != 1,
        "deinterlaced": facts.interlaced,
        f"was {facts.pixel_format}": facts.pixel_format not in _PLAIN,
        "no sound in the source": job.encode.keep_audio and facts.sound is None,
    }
    return _outcome(job, candidate, made, tried, notes)


def _as_it_is(job: ClipJob, candidate: Candidate, path: Path, facts: VideoFacts, tried: str) -> ClipOutcome | Unusable:
    """The outcome of a trimmed file that is copied, or stays where it is."""
    if job.encode.encode == "copy":
        keep_audio = job.encode.keep_audio
        failure = remux(path, job.target, facts, keep_audio=keep_audio, length_s=facts.end_s)
        if failure is not None:
            return failure
        path = job.target
    made = decode(path, "ends")
    if isinstance(made, Unusable):
        return made
    if made.frames < facts.frames - 1:
        return Unusable(status=TRUNCATED, detail=f"{made.frames} of {facts.frames} frames")
    notes = _common_notes(job.segment, made) | {
        "variable frame rate": facts.variable_rate,
        f"to be turned by {facts.rotation} degrees": facts.rotation != 0,
        f"pixels are {_ratio(facts)}": facts.pixel_aspect != 1,
        "interlaced": facts.interlaced,
        f"is {facts.pixel_format}": facts.pixel_format not in _PLAIN,
        "no sound in the source": job.encode.keep_audio and facts.sound is None,
    }
    return _outcome(job, candidate, made, tried, notes)


def _common_notes(segment: Segment, made: Decoded) -> dict[str, bool]:
    return {
        f"shorter than its segment: {made.duration_s:.2f} s": made.duration_s < segment.duration_s - 0.5,
        "black picture": made.black,
        "frozen picture": made.frozen and not made.black,
    }


def _ratio(facts: VideoFacts) -> str:
    return f"{facts.pixel_aspect.numerator}:{facts.pixel_aspect.denominator}"


def _outcome(job: ClipJob, candidate: Candidate, made: Decoded, tried: str, notes: dict[str, bool]) -> ClipOutcome:
    in_place = job.encode.encode == "none"
    data = b"" if in_place else job.target.read_bytes()
    return ClipOutcome(
        key=job.segment.key,
        status=OK,
        source=candidate.name,
        kind=candidate.kind,
        frames=made.frames,
        fps=round(made.fps, 6),
        width_px=made.width_px,
        height_px=made.height_px,
        codec=made.codec,
        size_bytes=Path(candidate.path).stat().st_size if in_place else len(data),
        sha256="" if in_place else hashlib.sha256(data).hexdigest(),
        path=candidate.path if in_place else "",
        notes=tuple(note for note, applies in notes.items() if applies),
        tried=tried,
    )
