"""What is in deploy/: read by the real tools, and true to the programs."""
