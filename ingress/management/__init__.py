"""The commands that manage endpoints at Sellfern, and what is known of its API Reference."""
