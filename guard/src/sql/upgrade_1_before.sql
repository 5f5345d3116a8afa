-- From version 1, where the configuration was in tables. Their names become those of views; what is kept of them is read at
-- the end of the same transaction.
DROP FUNCTION IF EXISTS pgrail.verdict(pgrail.assignment, text, text, text, text, text, text);
DROP FUNCTION IF EXISTS pgrail.rights(pgrail.assignment, text);
DROP FUNCTION IF EXISTS pgrail.spend(pgrail.allowance, text, int, bigint, bigint);
DROP FUNCTION IF EXISTS pgrail.spend_more(pgrail.allowance, text, int, bigint);
DROP FUNCTION IF EXISTS pgrail.counts(int);
DROP FUNCTION IF EXISTS pgrail.measure(int);
DROP TRIGGER IF EXISTS settle ON pgrail.usage;
DROP FUNCTION IF EXISTS pgrail.settle();
ALTER TABLE IF EXISTS pgrail.usage DROP CONSTRAINT IF EXISTS usage_pkey;
ALTER TABLE IF EXISTS pgrail.usage RENAME TO version_1_usage;
ALTER TABLE IF EXISTS pgrail.allowance RENAME TO version_1_allowance;
ALTER TABLE IF EXISTS pgrail.assignment RENAME TO version_1_assignment;
ALTER TABLE IF EXISTS pgrail.member RENAME TO version_1_member;
ALTER TABLE IF EXISTS pgrail.relation RENAME TO version_1_relation;
ALTER TABLE IF EXISTS pgrail.guard RENAME TO version_1_guard;
ALTER TABLE IF EXISTS pgrail.trigger RENAME TO version_1_trigger;
ALTER TABLE IF EXISTS pgrail.routine RENAME TO version_1_routine;
ALTER TABLE IF EXISTS pgrail.install RENAME TO version_1_install;
