"""Stage `throughput.measure`."""
