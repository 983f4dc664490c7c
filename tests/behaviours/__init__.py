"""What several implementations of one interface must do alike; each has its own fixtures."""
