"""The public port: connections, what they may take, and all that they are answered."""
