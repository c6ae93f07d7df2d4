"""The agent's pure machines: links, hop transport, streams, routing. No I/O, no clock."""
