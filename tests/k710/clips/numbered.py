"""Videos whose every frame shows its number, as a row of black and white blocks that any encode leaves readable."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
import numpy as np

from k710.clips.media import ffmpeg_path

BITS, BLOCK_PX = 12, 16


def draw_numbers(num_frames: int) -> bytes:
    """Raw grey frames, 192x32."""
    bits_TK = (np.arange(num_frames)[:, None] >> np.arange(BITS)) & 1
    frames_THW = np.repeat(np.repeat(bits_TK[:, None, :], BLOCK_PX, axis=2), 2 * BLOCK_PX, axis=1) * 200 + 20
    return frames_THW.astype(np.uint8).tobytes()


def write_numbered(target: Path, num_frames: int, rate: str, *options: str) -> Path:
    """Write a video with keyframes 250 frames apart; ``options`` stand before the name of the file."""
    raw = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{BITS * BLOCK_PX}x{2 * BLOCK_PX}", "-r", rate, "-i", "pipe:"]
    rare = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "12", "-g", "250", "-x264-params", "scenecut=0"]
    command = [ffmpeg_path(), "-v", "error", "-y", *raw, *rare, "-pix_fmt", "yuv420p", *options, str(target)]
    subprocess.run(command, check=True, input=draw_numbers(num_frames))
    return target


def read_numbers(path: Path) -> list[int]:
    """The number of each frame of a clip made of such a video."""
    with av.open(str(path)) as container:
        return [_number(frame) for frame in container.decode(video=0)]


def _number(frame: av.VideoFrame) -> int:
    picture_HW = frame.to_ndarray(format="gray")
    blocks_K = np.array_split(picture_HW[picture_HW.shape[0] // 2], BITS)
    return sum(int(block[len(block) // 2] > 120) << bit for bit, block in enumerate(blocks_K))
