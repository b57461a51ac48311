"""Stage `throughput.reference`."""
