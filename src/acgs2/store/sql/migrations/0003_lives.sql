-- One life of a data directory, and what is known of the lives of others.
SET LOCAL ROLE acgs_owner;

-- When this incarnation began, how often its heart has beaten, and the start of the server for which it is
-- awake. The pulse is noted outside the database and heard by peers: one that was restored or copied lags
-- behind what they know, and takes a new life.
ALTER TABLE acgs.self
    ADD COLUMN born_us bigint NOT NULL DEFAULT 0,
    ADD COLUMN pulse bigint NOT NULL DEFAULT 0,
    ADD COLUMN started timestamptz,
    ADD COLUMN seeded boolean NOT NULL DEFAULT false;

-- The newest life of every peer that this region has heard of.
CREATE TABLE acgs.peer (
    region           text COLLATE "C" PRIMARY KEY,
    incarnation      text NOT NULL,
    born_us          bigint NOT NULL,
    pulse            bigint NOT NULL,
    heard_at         timestamptz NOT NULL
);

-- The links that arrive here: which life of the peer each was made for.
CREATE TABLE acgs.incoming (
    peer             text COLLATE "C" PRIMARY KEY,
    incarnation      text NOT NULL,
    linked_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason           text NOT NULL
);
GRANT SELECT ON acgs.peer, acgs.incoming TO acgs_app;
RESET ROLE;
