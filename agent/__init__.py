"""The device agent and its command line."""
