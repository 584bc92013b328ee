"""The HTTP server around the app: sockets, connections, logs, and systemd."""
