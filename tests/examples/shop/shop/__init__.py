"""A shop that handles what Sellfern tells it."""
