"""The HTTP surface of a region: thin routes over the store, derived from the entity declarations."""
