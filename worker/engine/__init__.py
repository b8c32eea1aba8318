"""Claims events and keeps them, whatever becomes of handlers, of the loop, or of Redis."""
