"""What every daemon needs of the host that it runs on: a configuration file, a log, and its service manager."""
