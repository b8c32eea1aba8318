"""Files that change, may hang, or hold something that is no text."""
