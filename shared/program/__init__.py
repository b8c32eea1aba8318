"""What every program of ours does: start, listen, show, stop."""
