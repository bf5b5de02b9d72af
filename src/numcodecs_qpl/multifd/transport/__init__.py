"""Connections: addresses, sockets, TLS, and how the connections of one migration are told from others."""
