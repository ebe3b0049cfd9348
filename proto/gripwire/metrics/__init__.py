"""What the bus says, as Prometheus metrics over HTTP."""
