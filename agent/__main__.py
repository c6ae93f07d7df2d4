"""``python -m agent`` is ``arborcast``."""

from agent.cli import main

if __name__ == "__main__":
    main()
