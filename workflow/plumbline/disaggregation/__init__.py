"""How close to local a remote accelerator can be, and what semantics save."""
