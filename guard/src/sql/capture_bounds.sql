-- The bounds of the guards that capture, where $1 manages pgrail's schema.
SELECT coalesce((SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', g.name, 'retention', g.capture_seconds, 'max_rows', g.capture_rows))
                 FROM pgrail.guard g WHERE g.capture_rows IS NOT NULL), '[]')::pg_catalog.text
FROM pgrail.install i WHERE i.owner OPERATOR(pg_catalog.=) $1
