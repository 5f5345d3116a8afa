-- How much of the windows of the guard $1, or of every guard, is used.
SELECT g.name AS guard, coalesce((SELECT n.nspname || '.' || t.relname FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace WHERE t.oid = r.rel::oid), r.label) AS "table",
       w.seconds, w.removed, w.max_rows, w.cascade_removed, w.max_cascade_rows, w.since, w.stopped
FROM pgrail.windows($1) w JOIN pgrail.assignment a ON a.id = w.assignment JOIN pgrail.guard g ON g.id = a.guard JOIN pgrail.relation r ON r.id = a.root
ORDER BY 1, 2
