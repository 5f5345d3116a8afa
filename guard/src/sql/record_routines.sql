INSERT INTO pgrail.routine AS r (name, source, fingerprint)
SELECT w.name, w.source, md5(concat_ws('|', p.prosrc, p.provolatile, p.prosecdef, p.proconfig::text, p.proowner::int8, p.proacl::text, p.prolang::int8, p.proargtypes::text))
FROM jsonb_to_recordset($1::jsonb) AS w(name name, source text)
JOIN pg_proc p ON p.proname = w.name AND p.pronamespace = 'pgrail'::regnamespace
ON CONFLICT (name) DO UPDATE SET source = excluded.source, fingerprint = excluded.fingerprint
