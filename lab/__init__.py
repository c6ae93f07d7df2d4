"""The lab: a whole system on one host, from one scenario file."""
