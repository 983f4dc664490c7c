-- Links in careful mode: a row that no code can merge is set aside instead of stopping the link.
SET LOCAL ROLE acgs_owner;
CREATE TABLE acgs.careful_link (
    source           text COLLATE "C" PRIMARY KEY,
    since            timestamptz NOT NULL DEFAULT clock_timestamp(),
    errors           bigint NOT NULL
);
-- How often applying failed, by link, as last looked at: errors that keep coming call for careful mode.
CREATE TABLE acgs.link_error (
    source           text COLLATE "C" PRIMARY KEY,
    errors           bigint NOT NULL,
    first_errors     bigint NOT NULL,
    changed_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE acgs.quarantine ADD COLUMN sqlstate text;
GRANT SELECT (sqlstate) ON acgs.quarantine TO acgs_app;
RESET ROLE;
