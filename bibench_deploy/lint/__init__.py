"""Check whether a binarized network can be deployed, before it is."""
