"""Where the sentence pairs come from: `grammar`, `hub` and `files` are the sources; the rest is their means."""
