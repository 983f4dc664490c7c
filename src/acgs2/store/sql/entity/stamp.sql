-- Stamps one locally written {{entity}}: clock, origin, vector, residency. Refuses what may not be written here.
CREATE OR REPLACE FUNCTION acgs.stamp_{{entity}}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    me acgs.rule;
    now_us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    n bigint := 1;
    holders text[];
BEGIN
    SELECT * INTO me FROM acgs.rule AS r WHERE r.entity = '{{entity}}' AND r.zone = NEW.zone;
    now_us := now_us + coalesce(me.clock_offset_us, 0);
    IF me.residency IS NULL OR me.valid_until_us <= now_us THEN
        me := acgs.decide('{{entity}}', NEW.zone, now_us);
    END IF;
    IF me.started IS DISTINCT FROM pg_catalog.pg_postmaster_start_time() THEN
        PERFORM acgs.refuse_writing();
    END IF;
    holders := me.residency;
    IF TG_OP = 'UPDATE' THEN
        NEW.rights := OLD.rights;
    ELSE
        NEW.rights := '{}';
    END IF;
    IF me.careful THEN
        {{rights}}
        holders := acgs.holders(me.residency, me.by_consent, NEW.rights);
    END IF;
    IF (me.region = ANY (holders)) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'AC001', MESSAGE = 'residency-not-lawful-here', DETAIL = jsonb_build_object(
            'entity', '{{entity}}', 'zone', NEW.zone, 'region', me.region, 'lawful', to_jsonb(me.residency));
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF ({{identity_new}}) IS DISTINCT FROM ({{identity_old}}) THEN
            RAISE EXCEPTION USING ERRCODE = 'AC008', MESSAGE = 'identity-changed', DETAIL = jsonb_build_object('entity', '{{entity}}', 'key', OLD.key);
        END IF;
        IF OLD.erased THEN
            RAISE EXCEPTION USING ERRCODE = 'AC002', MESSAGE = 'erased', DETAIL = jsonb_build_object('entity', '{{entity}}', 'key', OLD.key);
        END IF;
        n := coalesce((OLD.vv -> me.origin)::bigint, 0) + 1;
        NEW.hlc := greatest(now_us, OLD.hlc + 1);
        NEW.vv := OLD.vv || jsonb_build_object(me.origin, n);
        NEW.sent_to := CASE WHEN OLD.sent_to @> holders THEN OLD.sent_to
            ELSE acgs.names_union(OLD.sent_to, holders) END;
        NEW.meta := OLD.meta;
    ELSE
        NEW.hlc := now_us;
        NEW.vv := jsonb_build_object(me.origin, n);
        NEW.sent_to := holders;
        NEW.meta := '{}';
        NEW.erased := false;
    END IF;
    NEW.origin := me.origin;
    NEW.residency := holders;
    IF NEW.erased THEN
        NEW.meta := '{}';
        {{erase}}
        RETURN NEW;
    END IF;
    IF {{missing}} THEN
        RAISE EXCEPTION USING ERRCODE = 'AC009', MESSAGE = 'required-missing', DETAIL = jsonb_build_object(
            'entity', '{{entity}}', 'key', NEW.key, 'required', '{{required}}'::jsonb);
    END IF;
    {{fields}}
    RETURN NEW;
END
$fn$;
CREATE OR REPLACE TRIGGER stamp BEFORE INSERT OR UPDATE ON acgs.{{entity}}
    FOR EACH ROW EXECUTE FUNCTION acgs.stamp_{{entity}}();
