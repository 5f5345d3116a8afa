-- The transaction $1, one row for each guard and owner that captured rows of it.
SELECT to_char(t.began AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS began, t.began::text AS exactly, t.login::text AS login, t.application,
       t.incomplete, to_char(t.undone_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS undone_at, t.undone_by::text AS undone_by
FROM {transactions} t WHERE t.xid = $1::text::xid8 ORDER BY t.guard, t.store
