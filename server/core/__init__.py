"""The server's decisions, pure: no socket, no clock, no randomness but what comes in as arguments."""
