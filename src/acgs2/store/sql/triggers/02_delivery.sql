-- What follows from messages, verdicts and subscriptions, whoever writes them: a request, or a link.
DO $do$
BEGIN
    IF to_regclass('acgs.message') IS NULL OR to_regclass('acgs.verdict') IS NULL OR to_regclass('acgs.subscription') IS NULL THEN
        RETURN;
    END IF;
    CREATE INDEX IF NOT EXISTS subscription_topic ON acgs.subscription (tenant_id, topic) WHERE NOT erased;
    CREATE INDEX IF NOT EXISTS verdict_message ON acgs.verdict (message_id) WHERE NOT erased;
    CREATE OR REPLACE TRIGGER deliver_insert AFTER INSERT ON acgs.message
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.message_came();
    CREATE OR REPLACE TRIGGER deliver_update AFTER UPDATE ON acgs.message
        REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.message_changed();
    CREATE OR REPLACE TRIGGER deliver_delete AFTER DELETE ON acgs.message
        REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION acgs.message_went();
    CREATE OR REPLACE TRIGGER deliver_insert AFTER INSERT ON acgs.verdict
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.verdict_came();
    CREATE OR REPLACE TRIGGER deliver_update AFTER UPDATE ON acgs.verdict
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.verdict_came();
    CREATE OR REPLACE TRIGGER deliver_insert AFTER INSERT ON acgs.subscription
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.subscription_came();
    CREATE OR REPLACE TRIGGER deliver_update AFTER UPDATE ON acgs.subscription
        REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.subscription_came();
    ALTER TABLE acgs.message ENABLE ALWAYS TRIGGER deliver_insert, ENABLE ALWAYS TRIGGER deliver_update, ENABLE ALWAYS TRIGGER deliver_delete;
    ALTER TABLE acgs.verdict ENABLE ALWAYS TRIGGER deliver_insert, ENABLE ALWAYS TRIGGER deliver_update;
    ALTER TABLE acgs.subscription ENABLE ALWAYS TRIGGER deliver_insert, ENABLE ALWAYS TRIGGER deliver_update;
END
$do$;
