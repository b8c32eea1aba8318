"""The ingress: takes Sellfern's deliveries in over HTTP and stores them durably."""
