"""The server's shells: coordinator, subscribers' sessions, tokens, stores."""
