"""Prove that an artifact computes what its source computes."""
