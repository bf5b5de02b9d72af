"""The host: its accelerators and processors, and what to do about a device that cannot be used."""
