"""Settings: how they are read, what is wrong with them, and where each is from."""
