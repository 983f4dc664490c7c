"""PostgreSQL: the schema as .sql files, compiled entities, journal, publications and slots.

Everything that decides who may hold a record, and every merge, happens inside the database; this package
only installs it and asks.
"""

from acgs2.store.durability import FlushWatcher
from acgs2.store.links import link
from acgs2.store.region import found
from acgs2.store.schema import migrate

__all__ = ["FlushWatcher", "found", "link", "migrate"]
