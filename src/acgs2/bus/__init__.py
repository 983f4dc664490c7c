"""The bus: what was accepted is handed to agents, by one region at a time for each zone."""
