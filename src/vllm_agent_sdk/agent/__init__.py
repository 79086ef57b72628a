"""Agents: what they are (definition), how they run (driver), and the tools they use."""
