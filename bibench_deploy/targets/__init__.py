"""The runtimes that bibench can write for, one folder each."""
