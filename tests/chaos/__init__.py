"""Breaks everything that can break while events come in, and draws up an account afterwards."""
