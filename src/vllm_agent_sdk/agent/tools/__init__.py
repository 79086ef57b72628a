"""What the model calls: functions, sets of them, agents as tools, and their results."""
