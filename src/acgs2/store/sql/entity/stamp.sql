-- Stamps one locally written {{entity}}: clock, origin, vector, residency. Refuses what may not be written here.
CREATE OR REPLACE FUNCTION acgs.stamp_{{entity}}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    me acgs.self;
    rule acgs.rule;
    now_us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    n bigint := 1;
BEGIN
    SELECT * INTO me FROM acgs.self;
    now_us := now_us + coalesce(me.clock_offset_us, 0);
    IF TG_OP = 'UPDATE' THEN
        IF ({{identity_new}}) IS DISTINCT FROM ({{identity_old}}) THEN
            PERFORM acgs.refuse('AC008', 'identity-changed', jsonb_build_object('entity', '{{entity}}', 'key', OLD.key));
        END IF;
        IF OLD.erased THEN
            PERFORM acgs.refuse('AC002', 'erased', jsonb_build_object('entity', '{{entity}}', 'key', OLD.key));
        END IF;
        n := coalesce((OLD.vv -> me.origin)::bigint, 0) + 1;
        NEW.hlc := greatest(now_us, OLD.hlc + 1);
        NEW.vv := OLD.vv || jsonb_build_object(me.origin, n);
        NEW.sent_to := OLD.sent_to;
        NEW.meta := OLD.meta;
    ELSE
        NEW.hlc := now_us;
        NEW.vv := jsonb_build_object(me.origin, n);
        NEW.sent_to := '{}';
        NEW.meta := '{}';
        NEW.erased := false;
    END IF;
    NEW.origin := me.origin;
    rule := acgs.rule_of('{{entity}}', NEW.zone, now_us);
    IF (me.region = ANY (rule.residency)) IS NOT TRUE THEN
        PERFORM acgs.refuse('AC001', 'residency-not-lawful-here', jsonb_build_object(
            'entity', '{{entity}}', 'zone', NEW.zone, 'region', me.region, 'lawful', to_jsonb(rule.residency)));
    END IF;
    NEW.residency := rule.residency;
    NEW.sent_to := acgs.names_union(NEW.sent_to, rule.residency);
    IF NEW.erased THEN
        NEW.meta := '{}';
        {{erase}}
        RETURN NEW;
    END IF;
    {{fields}}
    RETURN NEW;
END
$fn$;
CREATE OR REPLACE TRIGGER stamp BEFORE INSERT OR UPDATE ON acgs.{{entity}}
    FOR EACH ROW EXECUTE FUNCTION acgs.stamp_{{entity}}();
