"""What a worker computes with: weights, sessions with their state, and how a token is chosen."""
