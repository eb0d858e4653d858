"""From a PyTorch module to an artifact; the only part of the library that imports torch."""
