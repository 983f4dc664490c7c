-- The times in which this region acknowledged writes of a pair alone: agreed before the first of them.
SET LOCAL ROLE acgs_owner;
CREATE TABLE acgs.window (
    zone             text COLLATE "C" NOT NULL,
    version          bigint NOT NULL,
    peer             text COLLATE "C" NOT NULL,
    opened_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    opened_lsn       pg_lsn NOT NULL DEFAULT pg_catalog.pg_current_wal_lsn(),
    closed_at        timestamptz,
    closed_lsn       pg_lsn,
    PRIMARY KEY (zone, version)
);
GRANT SELECT ON acgs.window TO acgs_app;
RESET ROLE;
