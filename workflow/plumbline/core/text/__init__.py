"""Text as the studies read it: documents, byte-level BPE, token files."""
