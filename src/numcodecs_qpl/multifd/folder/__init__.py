"""A received guest in a folder: how it is written, and how it is read back."""
