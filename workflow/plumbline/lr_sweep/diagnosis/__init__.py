"""Diagnosis: is training as fast as it should be, and if not, why?"""
