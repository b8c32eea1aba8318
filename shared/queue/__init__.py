"""The queue in Redis: its names, its scripts, and what puts events into it."""
