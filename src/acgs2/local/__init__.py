"""Many regions on one machine: state directory, PostgreSQL, links with latency, supervisor."""
