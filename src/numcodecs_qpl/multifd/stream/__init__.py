"""QEMU's migration stream, as bytes and as values. Pure: no module here touches a file or a socket."""
