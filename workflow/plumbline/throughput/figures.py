"""Stage `throughput.figures`."""
