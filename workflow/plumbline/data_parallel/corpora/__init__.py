"""Where the sentence pairs come from: each module except `interface` and `lexicon` is a source with its name."""
