"""What a client tells of its work, to whoever is given as `AsyncVLLM(telemetry=…)`."""
