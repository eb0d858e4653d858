"""What each board is, and how to reach it."""
