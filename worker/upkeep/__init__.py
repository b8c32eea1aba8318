"""What one of all workers does every few minutes, whatever comes in."""
