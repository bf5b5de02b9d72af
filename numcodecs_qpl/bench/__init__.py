"""Data sets that speeds are measured on."""
