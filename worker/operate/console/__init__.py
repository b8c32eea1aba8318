"""A web page for operators: see what happens, whose it is and why, and act on it."""
