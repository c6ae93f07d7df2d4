"""`python -m server` is `arborcast-server`."""

from server.cli import main

if __name__ == "__main__":
    main()
