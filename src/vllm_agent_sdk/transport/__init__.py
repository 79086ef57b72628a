"""How bytes get to a server and back. The layer above is the client."""
