"""Formats of engines that do not read safetensors, a file each, named as the engine. Each has `write`."""
