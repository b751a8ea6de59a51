"""Clips: where the videos are, what ffmpeg makes of them, and what became of each."""
