"""The agent's local HTTP API on a unix socket: what the command line talks to."""
