"""Is this sweep as fast as it should be, and if not, why?"""
