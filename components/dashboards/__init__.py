"""What is watched and shown: alert rules and the Grafana dashboard, as data. Pure."""
