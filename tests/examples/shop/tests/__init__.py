"""Tests of the shop's handlers."""
