"""Ways to run a command on a device and to move files there, one per file."""
