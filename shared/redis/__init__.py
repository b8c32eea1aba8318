"""How Redis is reached, how batches get there fast, and whether it keeps what it is given."""
