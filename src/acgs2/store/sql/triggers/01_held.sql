-- Fires where messages, approvals and verdicts are written and where they arrive.
CREATE INDEX IF NOT EXISTS approval_message ON acgs.approval (message_id);
CREATE INDEX IF NOT EXISTS verdict_message ON acgs.verdict (message_id);
CREATE OR REPLACE TRIGGER held_insert AFTER INSERT ON acgs.message
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.note_held();
CREATE OR REPLACE TRIGGER held_update AFTER UPDATE ON acgs.message
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.note_held();
CREATE OR REPLACE TRIGGER said_insert AFTER INSERT ON acgs.approval
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.note_said();
CREATE OR REPLACE TRIGGER said_insert AFTER INSERT ON acgs.verdict
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.note_said();
ALTER TABLE acgs.message ENABLE ALWAYS TRIGGER held_insert;
ALTER TABLE acgs.message ENABLE ALWAYS TRIGGER held_update;
ALTER TABLE acgs.approval ENABLE ALWAYS TRIGGER said_insert;
ALTER TABLE acgs.verdict ENABLE ALWAYS TRIGGER said_insert;
