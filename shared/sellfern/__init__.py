"""Sellfern's public contract: its envelope, its signatures, its reference data."""
