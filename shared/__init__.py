"""What the ingress and the workers share: the contract with Sellfern, and the plumbing."""
