"""A remote runtime for causal language models: the protocol, the worker that computes, and the client that calls it."""
