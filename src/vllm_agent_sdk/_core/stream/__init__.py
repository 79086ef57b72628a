"""Streams and texts of replies, read piece by piece, whatever the pieces are."""
