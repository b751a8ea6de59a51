"""A toy Kinetics: real class names, official lists with planted leaks, and small drawn videos, all from one seed."""
