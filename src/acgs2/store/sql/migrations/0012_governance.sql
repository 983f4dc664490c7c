-- What governs here: each version of each agreed document that this region put in force, noted before it acts by it.
SET LOCAL ROLE acgs_owner;
CREATE TABLE acgs.in_force (
    kind             text COLLATE "C" NOT NULL,
    version          bigint NOT NULL CHECK (version > 0),
    digest           text COLLATE "C" NOT NULL,
    document         jsonb NOT NULL,
    learned_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    bound_at         timestamptz,  -- from then on nothing is done here by an older version
    PRIMARY KEY (kind, version)
);
GRANT SELECT ON acgs.in_force TO acgs_app;
RESET ROLE;
