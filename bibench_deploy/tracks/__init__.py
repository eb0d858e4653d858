"""The tracks of the benchmark, one per file: from measurements to the figures it ranks by."""
