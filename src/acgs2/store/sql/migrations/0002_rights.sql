-- How rights end and begin: what is still to be done here, what others still owe, what must never come back.
SET LOCAL ROLE acgs_owner;

-- The key of this database's fences. Fences of two regions cannot be compared.
CREATE TABLE acgs.fence_key (
    one              boolean PRIMARY KEY DEFAULT true CHECK (one),
    secret           bytea NOT NULL DEFAULT pg_catalog.uuid_send(gen_random_uuid())
                                         || pg_catalog.uuid_send(gen_random_uuid())
);
INSERT INTO acgs.fence_key DEFAULT VALUES;

-- What this region was told to forget: puts of the record that rest on no newer right are refused.
CREATE TABLE acgs.fence (
    hash             bytea PRIMARY KEY,
    rights           jsonb NOT NULL,
    at               timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What a merge or a change of rights makes necessary for others; emitted by an ordinary session, in batches.
CREATE TABLE acgs.due (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity           text COLLATE "C" NOT NULL,
    kind             text NOT NULL CHECK (kind IN ('put', 'erase', 'expel', 'done')),
    keys             uuid[] NOT NULL,
    targets          text[] NOT NULL,
    detail           jsonb NOT NULL DEFAULT '{}'
);

-- What other regions owe for records that this one erased or expelled, until they report done.
CREATE TABLE acgs.duty (
    entity           text COLLATE "C" NOT NULL,
    key              uuid NOT NULL,
    region           text COLLATE "C" NOT NULL,
    zone             text COLLATE "C" NOT NULL,
    kind             text NOT NULL CHECK (kind IN ('erase', 'expel')),
    rights           jsonb NOT NULL DEFAULT '{}',
    since            timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at          timestamptz,
    PRIMARY KEY (entity, key, region)
);
CREATE INDEX duty_open ON acgs.duty (region, since) WHERE done_at IS NULL;

-- Every region's report that it holds nothing any more of an entity of a zone; this region's own among them.
CREATE TABLE acgs.disposal (
    region           text COLLATE "C" NOT NULL,
    entity           text COLLATE "C" NOT NULL,
    zone             text COLLATE "C" NOT NULL,
    register_version bigint NOT NULL,
    records          bigint NOT NULL,
    began_at         timestamptz NOT NULL,
    done_at          timestamptz NOT NULL,
    PRIMARY KEY (region, entity, zone, register_version)
);

-- Ranges of records whose residency is to be brought up to changed rules, and how far that has come.
CREATE TABLE acgs.sweep (
    entity           text COLLATE "C" NOT NULL,
    zone             text COLLATE "C" NOT NULL,
    register_version bigint NOT NULL,
    next_key         uuid,
    records          bigint NOT NULL DEFAULT 0,
    began_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (entity, zone)
);

-- What this region may hold and has not been given yet: it asks one region for it, or any that has it.
CREATE TABLE acgs.acquisition (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity           text COLLATE "C" NOT NULL,
    zone             text COLLATE "C" NOT NULL,
    source           text COLLATE "C",
    asked            text COLLATE "C",
    request          uuid,
    records          bigint NOT NULL DEFAULT 0,
    since            timestamptz NOT NULL DEFAULT clock_timestamp(),
    asked_at         timestamptz,
    UNIQUE NULLS NOT DISTINCT (entity, zone, source)
);

-- What peers asked this region for: it emits the records to them alone, through the journal.
CREATE TABLE acgs.provision (
    request          uuid PRIMARY KEY,
    target           text COLLATE "C" NOT NULL,
    entity           text COLLATE "C" NOT NULL,
    zone             text COLLATE "C" NOT NULL,
    next_key         uuid,
    last_key         uuid,
    records          bigint NOT NULL DEFAULT 0,
    since            timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- From whom a put was dropped because this region's register did not let it in: should the right come, that
-- region is asked too, for what it sent meanwhile is on its way to others.
CREATE TABLE acgs.missed (
    entity           text COLLATE "C" NOT NULL,
    zone             text COLLATE "C" NOT NULL,
    source           text COLLATE "C" NOT NULL,
    PRIMARY KEY (entity, zone, source)
);

-- Tenants that moved from one zone to another; where there are some, puts of both zones are looked at closely.
CREATE TABLE acgs.move (
    tenant           uuid NOT NULL,
    epoch            bigint NOT NULL,
    from_zones       text[] NOT NULL,
    to_zone          text COLLATE "C" NOT NULL,
    at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_key         uuid,
    entity           text COLLATE "C",
    done_at          timestamptz,
    PRIMARY KEY (tenant, epoch)
);

-- Wakes the region's worker when there is something to do, whoever queued it: a request or a link.
CREATE FUNCTION acgs.wake() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    PERFORM pg_catalog.pg_notify('acgs_work', '');
    RETURN NULL;
END
$fn$;
CREATE TRIGGER wake AFTER INSERT ON acgs.due FOR EACH STATEMENT EXECUTE FUNCTION acgs.wake();
CREATE TRIGGER wake AFTER INSERT OR UPDATE OF register_version ON acgs.sweep FOR EACH STATEMENT EXECUTE FUNCTION acgs.wake();
CREATE TRIGGER wake AFTER INSERT ON acgs.acquisition FOR EACH STATEMENT EXECUTE FUNCTION acgs.wake();
CREATE TRIGGER wake AFTER INSERT ON acgs.provision FOR EACH STATEMENT EXECUTE FUNCTION acgs.wake();
ALTER TABLE acgs.due ENABLE ALWAYS TRIGGER wake;
ALTER TABLE acgs.sweep ENABLE ALWAYS TRIGGER wake;
ALTER TABLE acgs.acquisition ENABLE ALWAYS TRIGGER wake;
ALTER TABLE acgs.provision ENABLE ALWAYS TRIGGER wake;

GRANT SELECT ON acgs.duty, acgs.disposal, acgs.sweep, acgs.acquisition, acgs.provision, acgs.move TO acgs_app;
RESET ROLE;
