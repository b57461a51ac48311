"""Processes that compute together: how they are started and watched, and what each of them runs."""
