"""Stage `throughput.summarize`."""
