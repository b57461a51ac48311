"""Drawings of the study's figures."""
