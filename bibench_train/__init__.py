"""Train binarized networks in PyTorch with published algorithms."""
