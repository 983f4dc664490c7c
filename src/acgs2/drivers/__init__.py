"""The world that plans are carried out on, each part behind one small interface."""
