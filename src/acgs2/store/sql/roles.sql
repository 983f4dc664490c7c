-- The roles of one database server; none of them is a superuser.
-- acgs_owner owns schema and subscriptions, acgs_app serves requests, acgs_link reads the journal for a peer.
DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'acgs_owner') THEN
        CREATE ROLE acgs_owner LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'acgs_app') THEN
        CREATE ROLE acgs_app LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'acgs_link') THEN
        CREATE ROLE acgs_link LOGIN REPLICATION;
    END IF;
    -- acgs_owner merges what arrives outside a subscription too (genesis, quarantine), with the
    -- triggers that stamp local writes switched off; subscriptions are its own; it watches its peers.
    GRANT SET ON PARAMETER session_replication_role TO acgs_owner;
    GRANT pg_create_subscription, pg_monitor TO acgs_owner;
    GRANT EXECUTE ON FUNCTION pg_catalog.pg_replication_origin_progress(text, boolean) TO acgs_owner;
    EXECUTE format('GRANT CREATE, CONNECT ON DATABASE %I TO acgs_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO acgs_app, acgs_link', current_database());
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    -- A local writer gives way to a link: it looks for a deadlock first and so becomes its victim.
    ALTER ROLE acgs_app SET deadlock_timeout = '50ms';
    ALTER ROLE acgs_owner SET deadlock_timeout = '2s';
END
$do$;
