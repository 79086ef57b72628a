"""What the client costs, measured beside a bare loop and the peers; each module runs alone."""
