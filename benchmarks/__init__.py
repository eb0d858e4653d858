"""Measurements of the promises on speed and memory: `make bench`. They print, they never fail."""
