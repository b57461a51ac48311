"""Stage `throughput.limits`."""
