"""What operators look at and do: commands, the console, and what both of them ask of Redis."""
