"""Stage `throughput.max_batch`."""
