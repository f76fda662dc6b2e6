"""Applications that lbcore runs as backends."""
