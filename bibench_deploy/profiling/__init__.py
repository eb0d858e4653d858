"""Measure artifacts on devices: sweep, statistics, journal."""
