"""The month so far against the forecast, from the stack's own Prometheus."""
