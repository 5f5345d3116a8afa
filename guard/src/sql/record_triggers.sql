INSERT INTO pgrail.trigger AS r (rel, name, source, fingerprint)
SELECT t.tgrelid, t.tgname, w.source, md5(concat_ws('|', t.tgtype, t.tgfoid::int8, t.tgqual, t.tgattr, t.tgargs, t.tgconstraint::int8))
FROM jsonb_to_recordset($1::jsonb) AS w(rel oid, name name, source text)
JOIN pg_trigger t ON t.tgrelid = w.rel AND t.tgname = w.name
ON CONFLICT (rel, name) DO UPDATE SET source = excluded.source, fingerprint = excluded.fingerprint
