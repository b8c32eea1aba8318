"""What a handler does wrong, a module a kind."""
