"""Every performance goal as one command: ``python -m bench.NAME`` prints one JSON object; README.md tells its keys."""
