"""Running a stage: its command line, progress, locks, records, processes and devices."""
