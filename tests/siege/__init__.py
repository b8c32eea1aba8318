"""The ingress under attack: outsiders as processes, and genuine senders beside them."""
