"""Study `throughput`: how fast does a model generate, in how much memory, and what does compressing it buy?"""
