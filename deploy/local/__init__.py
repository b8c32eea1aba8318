"""Runs everything on one machine, for tests and for a look around."""
