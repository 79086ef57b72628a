"""Values: messages, tools, wire objects, events, options. No behaviour that waits."""
