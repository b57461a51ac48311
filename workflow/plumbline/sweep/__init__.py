"""The study `sweep`: any script or function as trials, with seeds, statistics and figures."""
