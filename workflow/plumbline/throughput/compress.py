"""Stage `throughput.compress`."""
