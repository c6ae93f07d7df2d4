"""The agent's shells: UDP endpoint, control client, stores on disk."""
