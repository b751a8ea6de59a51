"""The feed: which frames, how they are decoded and augmented, and in which order clips come."""
