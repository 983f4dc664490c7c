-- Which numbered migrations this database has had.
CREATE TABLE IF NOT EXISTS acgs.migration (
    number int PRIMARY KEY,
    name   text NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT ON acgs.migration TO acgs_owner, acgs_app;
