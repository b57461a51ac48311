"""Text for language models: documents, byte-level BPE, token files."""
