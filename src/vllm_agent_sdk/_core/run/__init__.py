"""The run as a machine: its state, what changes it, what it wants done, what it comes to."""
