-- Fires where policies are written and where they arrive.
CREATE OR REPLACE TRIGGER policies_changed AFTER INSERT OR UPDATE ON acgs.policy
    FOR EACH STATEMENT EXECUTE FUNCTION acgs.note_policies();
ALTER TABLE acgs.policy ENABLE ALWAYS TRIGGER policies_changed;
