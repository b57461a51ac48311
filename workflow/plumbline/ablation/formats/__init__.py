"""Adapters as other people's trainers write them: names, types, scales, formats, folders and CSVs."""
