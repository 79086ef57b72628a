"""How a conversation is written for a model: the wire's messages, or text with forms of ours."""
