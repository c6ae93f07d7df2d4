"""The server's HTTP and WebSocket surface: one router per resource; decode, call, encode."""
