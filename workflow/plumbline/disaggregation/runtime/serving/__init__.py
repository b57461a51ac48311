"""The worker's side of a connection: requests, turns of sessions, graphs and values that it holds."""
