"""Calls that a server left in the text, found in the formats of the model families."""
