"""What the command line and the scripts run: settings, measurements, results as plain dicts."""
