"""Stage `throughput.base`."""
