"""The way of one event: decoded, marked, judged, handled, settled."""
