"""What bytes mean: checkpoint formats, the manifest, the wire messages. No sockets, threads or daemons."""
