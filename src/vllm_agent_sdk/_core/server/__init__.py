"""Servers: how they fail and are asked again, which one is asked, and what is known of them."""
