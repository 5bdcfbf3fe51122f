"""Training tasks, one a file: each owns its networks and says what they minimise."""
