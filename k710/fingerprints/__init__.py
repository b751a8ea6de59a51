"""What clips look like, as hashes of their frames, and which clips of a build look the same."""
