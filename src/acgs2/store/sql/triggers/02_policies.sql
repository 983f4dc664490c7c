-- The first fires where policies are written and where they arrive, the second only where they are written.
CREATE OR REPLACE TRIGGER policies_changed AFTER INSERT OR UPDATE ON acgs.policy
    FOR EACH STATEMENT EXECUTE FUNCTION acgs.note_policies();
ALTER TABLE acgs.policy ENABLE ALWAYS TRIGGER policies_changed;
CREATE OR REPLACE TRIGGER policies_audited AFTER INSERT OR UPDATE ON acgs.policy
    FOR EACH ROW EXECUTE FUNCTION acgs.audit_policies();
