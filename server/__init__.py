"""The coordination server: who is adjacent to whom, how good each link is, and the graph that follows."""
