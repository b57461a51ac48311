"""Stage `throughput.own`."""
