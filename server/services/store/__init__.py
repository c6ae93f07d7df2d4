"""Where state lives: a small key-value seam with revisions, in a SQLite file or in memory."""
