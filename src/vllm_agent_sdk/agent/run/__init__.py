"""A run: its loop, how each effect is performed, and the handle the caller has."""
